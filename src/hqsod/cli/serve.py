"""`hqsod serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from hqsod import extras
from hqsod.cli.root import Batch, Device, Precision, Size, Weights, app
from hqsod.serve.limits import DEFAULTS, Limits

MEGA = 1_000_000


@app.command()
def serve(
    weights: Weights = None,
    size: Size = None,
    batch: Batch = None,
    device: Device = "auto",
    precision: Precision = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="HQSOD_TOKEN",
            help="Secret that clients must send; a new one by default, none on a loopback host.",
        ),
    ] = None,
    queue: Annotated[
        int,
        typer.Option(min=1, help="Images processed or waiting at once; more are answered 503."),
    ] = DEFAULTS.places,
    max_mb: Annotated[
        int, typer.Option(min=1, help="Megabytes an image file may have.")
    ] = DEFAULTS.body // MEGA,
    max_megapixels: Annotated[
        int, typer.Option(min=1, help="Megapixels an image may have.")
    ] = DEFAULTS.pixels // MEGA,
) -> None:
    """Serve saliency maps and cut-outs over HTTP, with a page that describes the API."""
    extras.require("serve", "hqsod serve")
    from hqsod.inference.saliency import about
    from hqsod.predict import Predictor
    from hqsod.serve.app import create_service
    from hqsod.serve.service import warm_up
    from hqsod.web import connections

    predictor = Predictor(weights, size=size, batch=batch, device=device, precision=precision)
    warm_up(predictor)
    limits = Limits(queue, max_mb * MEGA, max_megapixels * MEGA)
    listening, address = connections.listen(host, port, token)
    service = create_service(predictor, limits, address)
    typer.echo(f"weights: {about(predictor.network)}, batches of {predictor.batch}")
    typer.echo(f"open {address.url}\nstop with Ctrl+C; accepted requests are answered first")
    most = max(connections.CONNECTIONS, 2 * queue)
    connections.make(service, most).run(sockets=[listening])
