"""FastAPI under uvicorn: each process has a queue, and one thread that takes its waiting requests as a batch.

`uvicorn --factory loadtests.benchmark.peers.fastapi_peer:make`
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from loadtests.benchmark.peers import model

_Waiting = asyncio.Queue[tuple[bytes, asyncio.Future[bytes]]]


def make() -> FastAPI:
    """Return the application of one process."""
    waiting: _Waiting = asyncio.Queue()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batches = asyncio.create_task(_batches(waiting))
        yield
        batches.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/inference")
    async def infer(request: Request) -> Response:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        await waiting.put((await request.body(), answer))
        return Response(await answer, media_type="application/json")

    return app


async def _batches(waiting: _Waiting) -> None:
    """Answer the queue batch by batch in a thread, so that requests are read meanwhile."""
    loop, network, most = asyncio.get_running_loop(), model.Model(), model.batch()
    with ThreadPoolExecutor(1) as thread:
        while True:
            batch = [await waiting.get()]
            while len(batch) < most and not waiting.empty():
                batch.append(waiting.get_nowait())
            answers = await loop.run_in_executor(thread, network.answer, [body for body, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
