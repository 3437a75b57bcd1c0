"""What becomes of errors: before the first item, an error's answer; after it, a body that nobody takes for complete.

uvicorn examples.errors:app
curl -i http://127.0.0.1:8000/?fail_at=0     # 404
curl http://127.0.0.1:8000/?fail_at=3        # two items, and exit code 18
"""

import logging
from collections.abc import AsyncGenerator

from fastapi import FastAPI, HTTPException

from penstock import StreamedNDJSON

app = FastAPI()


async def rows(fail_at: int) -> AsyncGenerator[dict[str, int], None]:
    for number in range(5):
        if number == fail_at:
            raise HTTPException(404, f"There is no row {number}.")
        yield {"row": number}


def ended(reason: str) -> None:
    logging.getLogger("uvicorn.error").info("The rows ended: %s", reason)


@app.get("/", response_class=StreamedNDJSON)
async def get(fail_at: int = -1) -> StreamedNDJSON:
    return StreamedNDJSON(rows(fail_at), report=True, on_close=ended)
