"""A TCP proxy that hands everything on late: `python slow_proxy.py LISTEN_PORT HOST PORT SECONDS`, on loopback of its host."""

from __future__ import annotations

import asyncio
import sys


async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter, seconds: float) -> None:
    try:
        while data := await source.read(65536):
            await asyncio.sleep(seconds)
            target.write(data)
            await target.drain()
    except OSError:
        pass
    finally:
        target.close()


async def main(listen: int, host: str, port: int, seconds: float) -> None:
    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, back, seconds), carry(there, writer, seconds))

    server = await asyncio.start_server(meet, "127.0.0.1", listen)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
