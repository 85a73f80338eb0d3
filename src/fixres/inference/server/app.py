"""The endpoints."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from fixres.errors import fixres_version
from fixres.inference.server.middleware import Gate
from fixres.inference.server.network import Network
from fixres.inference.server.prometheus import Meters
from fixres.inference.server.schemas import (
    MAX_TOP_K,
    ONE_PICTURE,
    SEVERAL_PICTURES,
    TOP_K,
    BatchAnswer,
    CompareAnswer,
    ModelAnswer,
    PredictAnswer,
    PredictOptions,
    Problem,
    Weights,
    errors,
)
from fixres.inference.server.service import Service
from fixres.inference.server.settings import Settings
from fixres.inference.server.uploads import Upload, drain, read_upload

SizeQuery = Annotated[int | None, Query(ge=1, le=1_000_000, description="Side in pixels; the test size if left out.")]
TopQuery = Annotated[int, Query(ge=1, le=MAX_TOP_K, description="Classes to name.")]
ExplainQuery = Annotated[bool, Query(description="Add Grad-CAM.")]
WeightsQuery = Annotated[Weights, Query(description="Tensors a fix moved: after it, or before.")]
CoverageQuery = Annotated[
    float | None, Query(description="Add the classes that hold the right one for 0.8, 0.9, 0.95 or 0.99 of pictures.")
]
AbstainQuery = Annotated[
    float | None, Query(description="Say which answers are too unsure for 0.01, 0.02, 0.05 or 0.1 of them to be wrong.")
]
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#1f5fbf"/>'
    '<rect x="3" y="3" width="5" height="5" fill="#fff"/><path d="M6 13h7V6" fill="none" stroke="#fff" '
    'stroke-width="1.6"/></svg>'
)
_POST = errors(400, 401, 403, 408, 413, 415, 421, 422, 501, 503)


def make_app(network: Network, settings: Settings, token: str = "") -> ASGIApp:
    """Return the ASGI application of one worker.

    Args:
        network: what answers.
        settings: limits, batching, hosts.
        token: what clients must show; empty: nothing.
    """
    meters = Meters(settings.meters)
    service = Service(network, settings, meters)
    app = FastAPI(
        title="fixres",
        version=fixres_version(),
        description=f"{network.architecture}, {len(network.classes)} classes.",
        lifespan=lambda _app: service.running(),
        # Their pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    _add_answers(app, service)
    _add_state(app, service)
    _add_page(app)
    _add_handlers(app)
    gate = Gate(app, settings, token, meters)
    if not settings.allow_origin:
        return gate
    return CORSMiddleware(
        # Browsers write origins in lower case.
        gate,
        allow_origins=[origin.lower() for origin in settings.allow_origin],
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization",),
    )


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/v1/predict", response_model_exclude_none=True, responses=_POST, openapi_extra=ONE_PICTURE)
    async def predict(
        request: Request,
        size: SizeQuery = None,
        top_k: TopQuery = TOP_K,
        explain: ExplainQuery = False,
        weights: WeightsQuery = "fixed",
        coverage: CoverageQuery = None,
        abstain: AbstainQuery = None,
    ) -> PredictAnswer:
        """Classify one picture: the body itself, or the `file` of a form, whose fields stand in for the parameters."""
        with service.admission.ticket() as ticket:
            upload = await read_upload(request, ticket, service.admission, 1)
            asked = PredictOptions(
                size=size, top_k=top_k, explain=explain, weights=weights, coverage=coverage, abstain=abstain
            )
            options = _with_fields(asked, upload)
            if options.explain:
                service.network.require_explainable()
            _require_file(upload)
            found_size, is_degraded = await service.size_of(options)
            answer = await service.predict(upload, found_size, options, ticket)
            answer.degraded = is_degraded or None
            return answer

    @app.post("/v1/predict/batch", response_model_exclude_none=True, responses=_POST, openapi_extra=SEVERAL_PICTURES)
    async def predict_batch(
        request: Request,
        size: SizeQuery = None,
        top_k: TopQuery = TOP_K,
        weights: WeightsQuery = "fixed",
        coverage: CoverageQuery = None,
        abstain: AbstainQuery = None,
    ) -> BatchAnswer:
        """Classify the pictures of a form; one that cannot be used has its error in its place."""
        with service.admission.ticket() as ticket:
            upload = await read_upload(request, ticket, service.admission, service.limits.files)
            if not upload.files:
                raise Problem(400, "no_file", "the request holds no file")
            asked = PredictOptions(size=size, top_k=top_k, weights=weights, coverage=coverage, abstain=abstain)
            options = _with_fields(asked, upload)
            found_size, is_degraded = await service.size_of(options)
            ticket.take_pictures(len(upload.files))
            results = await service.predict_all(upload, found_size, options, ticket)
        return BatchAnswer(size=found_size, weights=options.weights, results=results, degraded=is_degraded or None)

    @app.post("/v1/compare", response_model_exclude_none=True, responses=_POST, openapi_extra=ONE_PICTURE)
    async def compare(request: Request, top_k: TopQuery = TOP_K, explain: ExplainQuery = False) -> CompareAnswer:
        """Classify one picture at the train size, the un-fixed test size and the fixed size."""
        with service.admission.ticket() as ticket:
            upload = await read_upload(request, ticket, service.admission, 1)
            options = _with_fields(PredictOptions(top_k=top_k, explain=explain), upload)
            if options.explain:
                service.network.require_explainable()
            _require_file(upload)
            rows = await service.compare(upload, options, ticket)
        fixed = "before_fix" in service.network.compute
        note = "" if fixed else "The tensors from before a fix are not part of what is served."
        return CompareAnswer(rows=rows, note=note)


def _with_fields(options: PredictOptions, upload: Upload) -> PredictOptions:
    """Return the options with those of the form in their place.

    Raises:
        Problem: a field that cannot be used.
    """
    given = {name: value for name, value in upload.fields.items() if name in PredictOptions.model_fields}
    try:
        return PredictOptions.model_validate({**options.model_dump(), **given})
    except ValidationError as error:
        raise bad_parameter(error.errors()) from None


def _require_file(upload: Upload) -> None:
    if not upload.files:
        raise Problem(400, "no_file", "the form holds no file")


def bad_parameter(found: Any) -> Problem:
    """Return the answer to parameters that are out of range or of the wrong type."""
    lines = [f"{error['loc'][-1] if error['loc'] else 'request'}: {error['msg']}" for error in found]
    return Problem(422, "bad_parameter", "; ".join(lines)[:500])


def _add_state(app: FastAPI, service: Service) -> None:
    network = service.network

    @app.get("/v1/model", responses=errors(401, 421))
    async def model() -> ModelAnswer:
        """Say what is served and how it is fed."""
        return ModelAnswer(
            **vars(network),
            **asdict(network.preprocess),
            num_classes=len(network.classes),
            resize_size=network.preprocess.resize_size,
            sizes=network.size_rule,
            weights=list(network.compute),
            checkpoint_sha256=network.sha256,
            explains=bool(network.products),
            limits=asdict(service.limits),
        )

    @app.get("/healthz", responses=errors(421))
    async def healthz() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses=errors(421, 503))
    async def readyz() -> dict[str, str]:
        """Say that a picture sent now is answered: there is room, a decoder is free and batches are computed."""
        if not service.is_ready:
            raise Problem(503, "not_ready", "a picture sent now would not be answered", 1)
        return {"status": "ready"}

    @app.get("/metrics", response_class=PlainTextResponse, responses=errors(401, 421))
    async def metrics() -> PlainTextResponse:
        """Counters for Prometheus, of all workers together."""
        service.meters.set_gauges(service.batcher.num_waiting(), service.admission.held_bytes)
        return PlainTextResponse(service.meters.text(), media_type="text/plain; version=0.0.4")


def _add_page(app: FastAPI) -> None:
    """Show the page: one file of ours, allowed to run its own script and to talk to this server only."""
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_hashes(text, 'script')}; style-src {_hashes(text, 'style')}; "
        "img-src 'self' blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )

    @app.get("/", include_in_schema=False)
    async def show_page() -> HTMLResponse:
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})

    @app.get("/favicon.ico", include_in_schema=False)
    async def show_icon() -> Response:
        return Response(_ICON, media_type="image/svg+xml")


def _hashes(text: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in found]
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def _add_handlers(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> JSONResponse:
        await drain(request)
        return problem.response()

    @app.exception_handler(RequestValidationError)
    async def on_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        return await on_problem(request, bad_parameter(error.errors()))

    @app.exception_handler(Exception)
    async def on_bug(_request: Request, _error: Exception) -> JSONResponse:
        # The gate writes it to the log.
        return Problem(500, "internal", "this is a bug; the server's log has more").response()

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        codes = {404: "not_found", 405: "method_not_allowed"}
        problem = Problem(error.status_code, codes.get(error.status_code, "bad_request"), str(error.detail))
        answer = await on_problem(request, problem)
        answer.headers.update(error.headers or {})
        return answer
