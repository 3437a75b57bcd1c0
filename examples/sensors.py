"""Sensors in real time: the latest to whoever looks, without a history.

uvicorn examples.sensors:app
curl -N http://127.0.0.1:8000/sensors &
curl -H 'Content-Type: application/json' -d '{"sensor": "roof", "celsius": 21.5}' http://127.0.0.1:8000/sensors
"""

from fastapi import FastAPI
from pydantic import BaseModel

from penstock import Broadcast, StreamedEvents, draining


class Reading(BaseModel):
    sensor: str
    celsius: float


app = FastAPI(lifespan=draining)
readings: Broadcast[Reading] = Broadcast(buffer=100, slow="drop")  # for who is slow, a gap is marked


@app.post("/sensors", status_code=202)
async def publish(reading: Reading) -> dict[str, int]:
    await readings.publish(reading)
    return {"readers": len(readings)}


@app.get("/sensors", response_class=StreamedEvents, responses=StreamedEvents.docs(Reading))
async def follow() -> StreamedEvents:
    return StreamedEvents(readings.subscribe())
