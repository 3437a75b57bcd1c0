"""A CSV of any size into a database: validated as it arrives, inserted in batches, in memory that does not grow.

uvicorn examples.csv_import:app
curl -H 'Content-Type: text/csv' --data-binary @readings.csv http://127.0.0.1:8000/readings
"""

import sqlite3
from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from penstock import StreamBody, install_problem_handlers, stream_body


class Reading(BaseModel):
    sensor: str
    celsius: float


app = FastAPI()
install_problem_handlers(app)
database = sqlite3.connect("imported.db", check_same_thread=False)
database.execute("CREATE TABLE IF NOT EXISTS readings (sensor TEXT, celsius REAL)")
readings = stream_body(content={"text/csv": Reading, "application/x-ndjson": Reading})


@app.post("/readings")
async def insert(body: Annotated[StreamBody, Depends(readings)]) -> dict[str, int]:
    count = 0
    async for batch in body.items(Reading).batches(1000):
        database.executemany("INSERT INTO readings VALUES (?, ?)", [(row.sensor, row.celsius) for row in batch])
        count += len(batch)
    database.commit()
    return {"inserted": count}
