// A page with Uppy, as its documentation shows: bundled by esbuild, and opened in a browser by the tests.

import Uppy from '@uppy/core'
import Tus from '@uppy/tus'

window.start = (endpoint, options) => {
  const uppy = new Uppy()
  uppy.use(Tus, { endpoint, retryDelays: [0, 100, 500], ...options })
  const requests = []
  uppy.getPlugin('Tus').setOptions({
    onAfterResponse: (request, response) => {
      requests.push(`${request.getMethod()} ${response.getStatus()}`)
    },
  })
  const input = document.createElement('input')
  input.type = 'file'
  input.id = 'file'
  input.onchange = () => {
    for (const file of input.files) uppy.addFile({ name: file.name, type: file.type, data: file })
  }
  document.body.append(input)
  window.uppy = uppy
  window.requests = requests
}

// Uploads; at the first sign of progress it pauses, and goes on after a while.
window.upload = async (pause) => {
  let paused = false
  uppy.on('upload-progress', (file, { bytesUploaded }) => {
    if (!pause || paused || !bytesUploaded) return
    paused = true
    uppy.pauseAll()
    setTimeout(() => uppy.resumeAll(), 100)
  })
  const { successful, failed } = await uppy.upload()
  return { urls: successful.map((file) => file.uploadURL), failed: failed.length, paused, requests }
}

// Begins to upload, and cancels at the first sign of progress: what is on the server goes too.
window.cancel = () =>
  new Promise((resolve) => {
    uppy.on('upload-progress', (file, { bytesUploaded }) => {
      if (bytesUploaded) uppy.cancelAll()
    })
    const look = () => (requests.includes('DELETE 204') ? resolve(requests) : setTimeout(look, 10))
    uppy.upload()
    look()
  })
