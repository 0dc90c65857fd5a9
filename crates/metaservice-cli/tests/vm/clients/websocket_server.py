"""A server of websockets over TLS, which returns each message.

Usage: websocket_server.py DIRECTORY
"""
import asyncio
import ssl
import sys

import websockets


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1] + "/server.pem", sys.argv[1] + "/server.key")
    async with websockets.serve(echo, "11.0.0.3", 443, ssl=context, max_size=None):
        print("ready", flush=True)
        await asyncio.Future()


asyncio.run(main())
