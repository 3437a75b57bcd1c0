"""Rows of a database as CSV or NDJSON, and a CSV of any size into it.

uvicorn examples.rows:app
curl -H 'Content-Type: text/csv' --data-binary @readings.csv http://127.0.0.1:8000/readings
curl http://127.0.0.1:8000/readings.csv
"""

import sqlite3
from collections.abc import Generator
from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from penstock import StreamBody, StreamedCSV, StreamedNDJSON, install_problem_handlers, stream_body


class Reading(BaseModel):
    sensor: str
    celsius: float


app = FastAPI()
install_problem_handlers(app)
database = sqlite3.connect("readings.db", check_same_thread=False)
database.execute("CREATE TABLE IF NOT EXISTS readings (sensor TEXT, celsius REAL)")


def select() -> Generator[dict[str, object], None, None]:
    for sensor, celsius in database.execute("SELECT sensor, celsius FROM readings"):
        yield {"sensor": sensor, "celsius": celsius}


readings = stream_body(content={"text/csv": Reading, "application/x-ndjson": Reading})


@app.post("/readings")
async def insert(body: Annotated[StreamBody, Depends(readings)]) -> dict[str, int]:
    count = 0
    async for batch in body.items(Reading).batches(1000):
        database.executemany("INSERT INTO readings VALUES (?, ?)", [(row.sensor, row.celsius) for row in batch])
        count += len(batch)
    database.commit()
    return {"inserted": count}


@app.get("/readings.csv", response_class=StreamedCSV)
async def as_csv() -> StreamedCSV:
    return StreamedCSV(select(), columns=["sensor", "celsius"])


@app.get("/readings.ndjson", response_class=StreamedNDJSON)
async def as_ndjson() -> StreamedNDJSON:
    return StreamedNDJSON(select())
