"""visionserve.client: ask a running service from Python. Needs httpx or requests, and nothing else of this project.

blocking.Client, asynchronous.AsyncClient
    calls       what is sent, what a reply means
    exchange    is this the reply, or try again?   <- patience: how long to wait
    transports  one request over a kept connection
    grpc.GrpcClient, where grpcio is installed
"""

from visionserve.client.async_client import AsyncClient
from visionserve.client.client import Client
from visionserve.client.errors import ResponseError, ServiceUnreachable
from visionserve.client.file_result import FileResult
from visionserve.client.grpc import GrpcClient
from visionserve.client.results import Answer, Model, ModelName, Prediction, Workers
from visionserve.client.retry import Retries

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "FileResult",
    "GrpcClient",
    "Model",
    "ModelName",
    "Prediction",
    "ResponseError",
    "Retries",
    "ServiceUnreachable",
    "Workers",
]
