"""``anaphora serve``: models for clients of OpenAI's interface, over HTTP."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from anaphora import settings
from anaphora.cli.output import Output, complain, reported_errors, reported_misuse
from anaphora.cli.precision import MatmulPrecision, Weights, products_in

_MEBIBYTE = 1 << 20


def serve(
    directories: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR",
            help="Model directories; NAME=DIR gives a name other than that of the directory.",
        ),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")
    ] = 8000,
    host: Annotated[
        str,
        typer.Option(help="The address to listen on; 0.0.0.0 for all interfaces of the machine."),
    ] = "127.0.0.1",
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="A key that requests must have. May be repeated. ANAPHORA_API_KEY sets one too, "
            "and does not show in the list of processes.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel="Access",
            help="A name by which clients may address the server. May be repeated.",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            rich_help_panel="Access",
            help="Pages of this origin, such as https://example.org, may use the server. May be "
            "repeated.",
        ),
    ] = None,
    max_batch_size: Annotated[
        int,
        typer.Option(
            min=1, rich_help_panel="Limits", help="Texts that a model writes at the same time."
        ),
    ] = 64,
    max_queue: Annotated[
        int,
        typer.Option(
            min=0,
            rich_help_panel="Limits",
            help="Prompts that may wait for a model; more get the status 429.",
        ),
    ] = 256,
    max_tokens: Annotated[
        int,
        typer.Option(min=0, rich_help_panel="Limits", help="Tokens that a choice may have."),
    ] = 16_384,
    max_prompt_tokens: Annotated[
        int,
        typer.Option(
            min=1, rich_help_panel="Limits", help="Tokens that the prompts of a request may have."
        ),
    ] = 100_000,
    max_choices: Annotated[
        int,
        typer.Option(
            min=1, rich_help_panel="Limits", help="Choices of a request: its prompts times n."
        ),
    ] = 128,
    max_body: Annotated[
        int,
        typer.Option(
            min=1, metavar="MIB", rich_help_panel="Limits", help="Size of a request, in MiB."
        ),
    ] = 4,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.001, metavar="SECONDS", rich_help_panel="Limits", help="Time of a request."
        ),
    ] = 600.0,
    cache: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="MIB",
            rich_help_panel="Limits",
            help="Memory, in MiB for each model, for the states of prompts, which prompts that "
            "begin alike share.",
        ),
    ] = 64,
    matmul_precision: MatmulPrecision = "float32",
    weights: Weights = None,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Print a line about each request.")
    ] = False,
    log_prompts: Annotated[
        bool,
        typer.Option(
            "--log-prompts", help="Print the body of each request too, with prompts and inputs."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on standard output, prose on standard error.")
    ] = False,
) -> None:
    """Serve models over HTTP, to clients of OpenAI's interface.

    Language models answer at /v1/completions, /v1/tokenize, /v1/detokenize and /v1/inspect; other
    models at /v1/predict. Also: /v1/models, /health, /metrics (Prometheus) and /openapi.json, which
    describes them all. At / is a page on which to write with a model and to see inside.

    Requests are batched as they come: what arrives while a step runs joins the next one. An answer
    is the same whoever else is served.

    Only this machine can connect, unless --host is given; pages of other sites cannot use the
    server, unless --cors-origin is given. SIGTERM or Ctrl-C finishes what runs, and ends.

    A model that is replaced on disk is still served as it was loaded, and /health says so.

    With --json, one line: address, models.
    """
    output = Output(as_json)
    with reported_errors(), contextlib.ExitStack() as stack:
        try:
            from anaphora import serve as package
        except ModuleNotFoundError as error:
            raise ImportError(
                f'serving needs the package {error.name}; install it: pip install "anaphora[serve]"'
            ) from error
        with reported_misuse():
            keys = [*(api_key or []), *([key] if (key := settings.api_key()) else [])]
            if any(not key.isprintable() or not key.isascii() or not key.strip() for key in keys):
                raise ValueError("--api-key is empty or has characters other than printable ASCII")
            named = [_named(one) for one in directories]
            names = [name for name, _ in named]
            if repeated := {name for name in names if names.count(name) > 1}:
                raise ValueError(
                    f"two models have the name {repeated.pop()!r}; give one another: NAME=DIR"
                )
            for origin in cors_origin or []:
                if not re.fullmatch(r"https?://[^/\s]+", origin):
                    raise ValueError(
                        f"--cors-origin {origin!r:.80}; expected an origin such as "
                        "https://example.org, without a path"
                    )
        from anaphora.serve.guard import is_loopback

        with reported_misuse():
            models = [package.ServedModel.load(path, name, weights) for name, path in named]
        stack.enter_context(products_in(matmul_precision, *(one.model for one in models)))
        server = package.Server(
            models,
            package.Limits(
                body_bytes=max_body * _MEBIBYTE,
                prompt_tokens=max_prompt_tokens,
                max_tokens=max_tokens,
                choices=max_choices,
                seconds=timeout,
            ),
            package.Access(
                host=host, names=allowed_host or [], origins=cors_origin or [], keys=keys
            ),
            max_batch_size=max_batch_size,
            max_queue=max_queue,
            cache_bytes=cache * _MEBIBYTE,
            log=complain if log_requests or log_prompts else None,
            log_prompts=log_prompts,
        )
        with package.listen(host, port) as listening:
            address = package.address_of(listening)
            output.emit({"address": address, "models": names})
            products = "; matrix products in bfloat16" if matmul_precision == "bfloat16" else ""
            shown = [
                one.name + " (weights in 8 bits)" * (one.model.weights == "int8") for one in models
            ]
            output.say(f"serving {', '.join(shown)} at {address}{products}")
            if not keys and not is_loopback(host):
                output.say("everybody who reaches this machine can use it: consider --api-key")
            sys.stdout.flush()
            try:
                package.run(server, listening)
            except KeyboardInterrupt:  # the signal by which it was ended, after what ran is done
                output.say("ended")


def _named(given: str) -> tuple[str, Path]:
    """The name and the directory of an argument, DIR or NAME=DIR."""
    name, separator, directory = given.partition("=")
    if separator and name and not Path(given).exists():
        if not re.fullmatch(r"[\w.:/-]+", name):
            raise ValueError(
                f"model name {name!r:.80}: expected letters, digits and the characters . : / - _"
            )
        return name, Path(directory)
    return Path(given).resolve().name, Path(given)
