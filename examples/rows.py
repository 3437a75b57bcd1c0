"""Rows of a database as CSV or NDJSON, with a connection that is open just while they are read.

uvicorn examples.rows:app
curl http://127.0.0.1:8000/readings.csv
curl http://127.0.0.1:8000/readings.ndjson
"""

import sqlite3
from collections.abc import Generator, Iterable
from typing import Annotated

from fastapi import Depends, FastAPI

from penstock import Deferred, StreamedCSV, StreamedNDJSON, deferred

app = FastAPI()


def connect() -> Generator[sqlite3.Connection, None, None]:  # as any dependency with yield
    database = sqlite3.connect("readings.db")
    database.execute("CREATE TABLE IF NOT EXISTS readings AS SELECT 'roof' AS sensor, 21.5 AS celsius")
    yield database
    database.close()


Connections = Annotated[Deferred[sqlite3.Connection], Depends(deferred(connect))]


@app.get("/readings.ndjson", response_class=StreamedNDJSON)
def rows(connections: Connections) -> Iterable[dict[str, object]]:
    with connections.open() as database:
        for sensor, celsius in database.execute("SELECT sensor, celsius FROM readings"):
            yield {"sensor": sensor, "celsius": celsius}


@app.get("/readings.csv", response_class=StreamedCSV)
async def as_csv(connections: Connections) -> StreamedCSV:
    return StreamedCSV(rows(connections), columns=["sensor", "celsius"])
