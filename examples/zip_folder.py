"""A folder as one zip archive: nothing is held in memory or on the disk, its length is known, and it resumes.

uvicorn examples.zip_folder:app
mkdir -p photos; echo one > photos/1.txt; echo two > photos/2.txt
curl -o photos.zip http://127.0.0.1:8000/photos.zip
curl -r 0-99 -o start.zip http://127.0.0.1:8000/photos.zip
"""

from fastapi import FastAPI

from penstock import StreamedZip, ZipFolder, draining

app = FastAPI(lifespan=draining)


@app.get("/photos.zip", response_class=StreamedZip)
async def photos() -> StreamedZip:
    return StreamedZip(ZipFolder("./photos"), filename="photos.zip")
