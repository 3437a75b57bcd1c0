"""What becomes of errors: before the first item, an error's answer; after it, a body that nobody takes for complete.

uvicorn examples.errors:app
curl -i 'http://127.0.0.1:8000/?fail_at=0'     # 404
curl 'http://127.0.0.1:8000/?fail_at=3'        # three rows, what happened, and exit code 18
curl 'http://127.0.0.1:8000/'                  # five rows, and an end that says so
"""

import logging
from collections.abc import AsyncGenerator

from fastapi import FastAPI, HTTPException

from penstock import StreamedNDJSON

app = FastAPI()
log = logging.getLogger("uvicorn.error")


async def rows(fail_at: int) -> AsyncGenerator[dict[str, int], None]:
    for number in range(5):
        if number == fail_at:
            raise HTTPException(404, f"There is no row {number}.")
        yield {"row": number}


def told(error: Exception) -> dict[str, str]:
    return {"code": "row-missing", "detail": str(error)}  # what the reader hears, in the last record


@app.get("/", response_class=StreamedNDJSON)
async def get(fail_at: int = -1) -> StreamedNDJSON:
    ended = lambda reason: log.info("The rows ended: %s", reason)  # noqa: E731 - complete, failed, disconnected, stopping
    return StreamedNDJSON(rows(fail_at), report=True, end=True, on_error=told, on_close=ended)
