// Uploads a file with tus-js-client, as its documentation shows: `node tus-js-client.mjs '{"endpoint": ..., "file": ...}'`.
// Prints what became of it as JSON: the URL, and each request's method and status.

import fs from 'node:fs'
import process from 'node:process'
import { Readable } from 'node:stream'
import * as tus from 'tus-js-client'

const { endpoint, file, source, pauseAt, terminate, storage, stopAt, ...options } = JSON.parse(process.argv[2])
const requests = []

const count = (method) => requests.filter((answered) => answered.startsWith(method)).length

function input() {
  if (source === 'stream') return Readable.from(fs.createReadStream(file))
  if (source === 'buffer') return fs.readFileSync(file)
  return fs.createReadStream(file)
}

const result = await new Promise((resolve, reject) => {
  let paused = false
  const upload = new tus.Upload(input(), {
    endpoint,
    retryDelays: [0, 50, 200, 500],
    ...(storage ? { urlStorage: new tus.FileUrlStorage(storage) } : {}),
    ...options,
    onAfterResponse: (request, response) => requests.push(`${request.getMethod()} ${response.getStatus()}`),
    onError: reject,
    onProgress: (sent) => {
      if (stopAt && sent >= stopAt) process.exit(7) // as if the machine went down
      if (!pauseAt || sent < pauseAt || paused) return
      paused = true
      upload.abort(terminate).then(async () => {
        if (!terminate) return setTimeout(() => upload.start(), 20)
        // What parts are ended by is not waited for by the client itself.
        while (count('DELETE') < (options.parallelUploads ?? 1)) await new Promise((done) => setTimeout(done, 10))
        resolve({ url: upload.url, paused })
      })
    },
    onSuccess: ({ lastResponse }) =>
      resolve({ url: upload.url, paused, body: lastResponse.getBody(), status: lastResponse.getStatus() }),
  })
  upload.findPreviousUploads().then((previous) => {
    if (previous.length > 0) upload.resumeFromPreviousUpload(previous[0])
    upload.start()
  })
})
console.log(JSON.stringify({ ...result, requests }))
process.exit(0)
