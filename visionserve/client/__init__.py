"""visionserve.client: call a running service from Python. Needs httpx, and nothing else of this project.

client.Client, async_client.AsyncClient
    http_messages  requests and what their replies mean     results, errors   what calls return and raise
    retry          send again, or not, and when             ordered_map       many files at once, in order
    transports     one request over a kept connection
grpc.GrpcClient, if grpcio is installed
"""

from visionserve.client.async_client import AsyncClient
from visionserve.client.client import Client
from visionserve.client.errors import ResponseError, ServiceUnreachable
from visionserve.client.grpc import GrpcClient
from visionserve.client.results import Answer, FileResult, Model, ModelName, Part, Prediction, Workers
from visionserve.client.retry import Retries

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "FileResult",
    "GrpcClient",
    "Model",
    "ModelName",
    "Part",
    "Prediction",
    "ResponseError",
    "Retries",
    "ServiceUnreachable",
    "Workers",
]
