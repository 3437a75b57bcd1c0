"""A dashboard of sensors: whoever looks sees the last value of each at once, then every change.

uvicorn examples.dashboard:app
curl -H 'Content-Type: application/json' -d '{"sensor": "roof", "celsius": 21.5}' http://127.0.0.1:8000/readings
curl -N 'http://127.0.0.1:8000/live/readings?offset=first' &
curl http://127.0.0.1:8000/     # in a browser
"""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from penstock import Streams, StreamSpec

READINGS = StreamSpec(content_type="application/x-ndjson", compact_by="sensor")  # of old records, the last a sensor
PAGE = """<!doctype html><title>Sensors</title><table></table><script>
const rows = {}
// By its name among others (?name=), it can be followed before anything was measured. It comes back by itself.
new EventSource('/live/?name=readings&offset=0').onmessage = event => {
  const { sensor, celsius } = JSON.parse(event.data).data
  rows[sensor] ??= document.querySelector('table').insertRow()
  rows[sensor].textContent = `${sensor}: ${celsius} °C`
}
</script>"""
streams = Streams("./data")
app = FastAPI(lifespan=streams.lifespan)
app.include_router(streams.live(prefix="/live"))
app.get("/", response_class=HTMLResponse)(lambda: PAGE)


class Reading(BaseModel):
    sensor: str
    celsius: float


@app.post("/readings", status_code=201)
async def measure(reading: Reading) -> None:
    await streams.append("readings", [reading.model_dump_json().encode() + b"\n"], create=READINGS)
