"""The routes of the server. An answer is JSON, also an error; nothing of a fault within is told to the caller."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from tfos_job.serve import tensorflow_serving
from tfos_job.serve.access_log import AccessLog
from tfos_job.serve.asked import read_body, read_options
from tfos_job.serve.bodies import is_light
from tfos_job.serve.channel import BEGAN_S
from tfos_job.serve.hub import aside
from tfos_job.serve.keys import Keys
from tfos_job.serve.lifecycle import Lifecycle
from tfos_job.serve.limits import Limits
from tfos_job.serve.metrics import CONTENT_TYPE, Metrics
from tfos_job.serve.model import is_short
from tfos_job.serve.models import Models
from tfos_job.serve.refusals import Refusal
from tfos_job.serve.responses import as_json

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_PAGE_FOLDER = "page"  # beside this module
_FORM_BYTES = 1 << 16  # of a form's fields that are no files
_OTHER_PARTS = 16  # of a form
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
)
_NOT_KEPT = (("Cache-Control", "no-store"),)
_OPEN_ROUTES = ("/healthz", "/readyz")  # for whoever starts and ends the server, who has no key

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the routes stand on.

    Attributes:
      models: those that answer.
      lifecycle: whether they do.
      limits: of a request.
      max_body_bytes: of a request.
      metrics: what is counted.
      access_log: what is written of each request.
      keys: of callers; None if everybody may ask.
    """

    models: Models
    lifecycle: Lifecycle
    limits: Limits
    max_body_bytes: int
    metrics: Metrics
    access_log: AccessLog
    keys: Keys | None


class _Application(Flask):
    """Flask, without what it does for each request that is the same for all of them."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func  # none is a coroutine's

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            has_own = any(name == "Cache-Control" for name, _ in headers)
            return start_response(status, [*headers, *_HEADERS, *([] if has_own else _NOT_KEPT)], exc_info)

        return super().wsgi_app(environ, start)


def make(service: Service) -> Flask:
    """The application."""
    app = _Application(__name__, static_folder=_PAGE_FOLDER, static_url_path="/static")
    app.config["MAX_CONTENT_LENGTH"] = service.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = _FORM_BYTES
    app.config["MAX_FORM_PARTS"] = service.limits.max_images + _OTHER_PARTS
    app.before_request(lambda: _begin(service))
    app.after_request(lambda response: _end(service, response))
    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(HTTPException, _failed)
    app.register_error_handler(Exception, _broken)
    app.add_url_rule("/predict", view_func=lambda: _predict(service), methods=["POST"], endpoint="predict")
    tensorflow_serving.add_routes(app, service.models, service.lifecycle, service.limits)
    app.add_url_rule("/healthz", view_func=lambda: _health(service), endpoint="healthz")
    app.add_url_rule("/readyz", view_func=lambda: _readiness(service), endpoint="readyz")
    app.add_url_rule("/metrics", view_func=lambda: _metrics(service), endpoint="metrics")
    app.add_url_rule("/", view_func=lambda: _page(app), endpoint="page")
    return app


def _begin(service: Service) -> None:
    g.began_s = request.environ.get(BEGAN_S) or time.monotonic()
    if service.keys is not None and request.path not in _OPEN_ROUTES:
        service.keys.require(request)


def _end(service: Service, response: Response) -> Response:
    """Metrics and the access log."""
    rule = request.url_rule
    route = "none" if rule is None else rule.rule
    service.metrics.answered(route, response.status_code, time.monotonic() - g.began_s)
    service.access_log.add(
        began_s=g.began_s,
        client=request.remote_addr,
        method=request.method[:20],
        path=request.path[:200],
        status=response.status_code,
        bytes_in=request.content_length or 0,
        bytes_out=response.content_length or 0,
        **g.get("facts", {}),
    )
    return response


def _predict(service: Service) -> Response:
    service.lifecycle.require(g.began_s)
    options = read_options(request.args)
    with service.limits.bodies.share() as share, service.models.used(request.args.get("model")) as model:
        until_s = model.until_s(g.began_s)
        asked = aside(lambda: read_body(request, service.limits.max_images, share), until_s, unless=is_light(request))
        g.facts = {"model": model.name, "step": model.loaded.network.step, "pictures": len(asked)}
        answer = model.answer(asked, options, g.began_s)
        return aside(lambda: as_json(answer), until_s, unless=is_short(len(asked), options))


def _health(service: Service) -> Response:
    """True as long as all threads live that answers need."""
    dead = [model.name for model in service.models.all if not model.batcher.is_alive]
    if dead:
        return as_json({"healthy": False, "error": f"the thread that computes has ended: {', '.join(dead)}"}, 503)
    return as_json({"healthy": True})


def _readiness(service: Service) -> Response:
    if service.lifecycle.is_ready and all(model.batcher.is_alive for model in service.models.all):
        return as_json({"ready": True, "models": [model.describe() for model in service.models.all]})
    return as_json({"ready": False}, 503)


def _metrics(service: Service) -> Response:
    return Response(service.metrics.text(service.lifecycle.is_ready), content_type=CONTENT_TYPE)


def _page(app: Flask) -> Response:
    return app.send_static_file("index.html")


def _refused(error: Refusal) -> Response:
    response = as_json({"error": error.fact}, error.status)
    response.headers.update(error.headers)
    return response


def _failed(error: HTTPException) -> Response:
    """What Flask itself refuses: another path, another method, a form that is too large or no form."""
    fact = "the body or the form is too large" if isinstance(error, RequestEntityTooLarge) else error.name
    response = as_json({"error": fact}, error.code or 500)
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _broken(error: Exception) -> Response:
    _log.error("%s %s: a fault of the server", request.method, request.path, exc_info=error)
    return as_json({"error": "a fault of the server; its log has more"}, 500)
