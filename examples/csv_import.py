"""A CSV of any size into a database: validated as it arrives, inserted in batches, all of it or nothing.

uvicorn examples.csv_import:app
curl -H 'Content-Type: text/csv' --data-binary @readings.csv 'http://127.0.0.1:8000/readings?on_error=skip'
"""

import asyncio
import sqlite3
from contextlib import closing
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from penstock import StreamBody, install_problem_handlers, stream_body

INSERT = "INSERT INTO readings VALUES (?, ?)"


class Reading(BaseModel):
    sensor: str
    celsius: float


app = FastAPI()
install_problem_handlers(app)
readings = stream_body(content={"text/csv": Reading, "application/x-ndjson": Reading})


@app.post("/readings")
async def insert(body: Annotated[StreamBody, Depends(readings)], on_error: Literal["stop", "skip"] = "stop") -> Any:
    rows = body.items(Reading, on_error=on_error)  # to stop is a 422 that names the record and its byte
    with closing(sqlite3.connect("imported.db", check_same_thread=False)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS readings (sensor TEXT, celsius REAL)")
        async for batch in rows.batches(5000):
            await asyncio.to_thread(database.executemany, INSERT, [(row.sensor, row.celsius) for row in batch])
        database.commit()
    skipped = [{"record": error.number, "offset": error.offset, "why": error.reason} for error in rows.errors]
    return {"inserted": rows.count - rows.skipped, "skipped": rows.skipped, "errors": skipped}
