"""In the guest: exchanges messages of several sizes over one websocket."""
import asyncio

import websockets


async def main():
    async with websockets.connect("wss://ws.test/", max_size=None) as socket:
        for size in [1, 100, 70_000, 3_000_000]:
            await socket.send(bytes(size))
            print(len(await socket.recv()))
        await (await socket.ping())


asyncio.run(main())
