from visionserve import errors
from visionserve.errors import ServiceError


def leaves() -> list[type[ServiceError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ServiceError)][1:]


def test_every_error_has_its_own_code_and_a_status_that_is_an_error() -> None:
    codes = [kind.code for kind in leaves()]
    assert len(codes) == 16
    assert len(set(codes)) == len(codes)
    assert all(400 <= kind.status < 600 for kind in leaves())


def test_an_errors_body_is_its_code_and_its_message() -> None:
    assert errors.EmptyBody("send an image").body() == {"code": "empty_body", "message": "send an image"}
