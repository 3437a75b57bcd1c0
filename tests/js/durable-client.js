// Uses the official client as its documentation does, and tells in JSON what it saw.
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"

const [url, mode] = process.argv.slice(2)

async function writeAndRead() {
  const handle = await DurableStream.create({ url, contentType: "application/json" })
  for (let n = 0; n < 3; n++) await handle.append(JSON.stringify({ n }))
  const producer = new IdempotentProducer(handle, "a-producer", { autoClaim: true })
  for (let n = 3; n < 103; n++) producer.append(JSON.stringify({ n }))
  await producer.flush()
  const first = await stream({ url, json: true, live: false })
  const items = await first.json()
  const { offset } = first
  for (let n = 103; n < 106; n++) await handle.append(JSON.stringify({ n }))
  const rest = await (await stream({ url, json: true, offset, live: false })).json()
  return { items, rest, offset }
}

// Reads live while it writes, leaves in the middle, and goes on at the offset of the last batch that it kept.
async function followAndResume(live) {
  const handle = await DurableStream.create({ url, contentType: "application/json" })
  const seen = []
  let offset = "-1"
  const read = async (enough) => {
    const response = await stream({ url, json: true, offset, live })
    await new Promise((resolve, reject) => {
      response.closed.then(resolve, reject)
      response.subscribeJson(async (batch) => {
        if (seen.length >= enough) return // it comes after we have left
        seen.push(...batch.items.map((item) => item.n))
        offset = batch.offset
        if (seen.length >= enough) {
          response.cancel()
          resolve()
        }
      })
    })
    return response
  }
  const write = async (from, to) => {
    for (let n = from; n < to; n++) await handle.append(JSON.stringify({ n }))
  }
  await Promise.all([write(0, 40), read(10)])
  const last = read(Infinity)
  await write(40, 50)
  await handle.close()
  return { seen, closed: (await last).streamClosed }
}

const result = mode === "write" ? await writeAndRead() : await followAndResume(mode)
console.log(JSON.stringify(result))
process.exit(0)
