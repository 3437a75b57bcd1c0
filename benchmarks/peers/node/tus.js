import { FileStore } from "@tus/file-store"
import { Server } from "@tus/server"

new Server({ path: "/files", datastore: new FileStore({ directory: process.argv[3] }) }).listen({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
})
