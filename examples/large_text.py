"""A long text from a generator, sent as it is made.

uvicorn examples.large_text:app
curl 'http://127.0.0.1:8000/numbers?count=200000'
"""

from collections.abc import Generator

from fastapi import FastAPI

from penstock import StreamedText

app = FastAPI()


def counted(count: int) -> Generator[str, None, None]:
    for number in range(count):
        yield f"{number}\n"


@app.get("/numbers", response_class=StreamedText)
async def numbers(count: int = 1000) -> StreamedText:
    return StreamedText(counted(count))
