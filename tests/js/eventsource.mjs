// Follows a live stream with the npm package eventsource, prints each record, and stops at its end.
import { EventSource } from 'eventsource'

const source = new EventSource(process.argv[2])
source.onmessage = event => console.log(JSON.stringify({ id: event.lastEventId, data: event.data }))
source.addEventListener('end', event => {
  console.log(JSON.stringify({ end: JSON.parse(event.data) }))
  source.close()
})
