"""The end of a stream, shared by all who follow it there.

Readers of one stream in one format who stand at the same offset are sent the same bytes, built once (`SharedTail`):
one watch, one look into the store and one text for all of them, however many they are. What came since a reader's
offset goes out in one write, to some readers in each turn of the event loop, so that appends are taken in between: what
they add goes along with the readers who have not had their turn yet. That is why a log beats a queue for each reader.

The latest parts are kept in a ring of bounded size, and only while somebody needs them (`ring`). A reader who is
further back (a replay, a slow line) reads from the store by itself (`followers`) until it meets the ring. So the store
stays the truth, and a slow reader costs no memory and holds up nobody.

How a stream is written is for the door to say (`telling`).
"""
