"""What the visionserve dashboard shows, row by row, each panel a question that somebody on call asks."""

from monitoring.dashboard.model import (
    ANSWERED,
    MODEL,
    SCOPE,
    Panel,
    Query,
    Row,
    bad_above,
    bad_below,
    mean,
    quantile,
    rate,
)


def _burn(promise: str, budget: float) -> tuple[Query, ...]:
    series = f"visionserve:{promise}_errors:ratio_rate"
    return tuple(Query(f"{series}{window}{{{SCOPE}}} / {budget}", window) for window in ("5m", "1h", "6h", "3d"))


_PROMISES = Row(
    "Service level objectives",
    (
        Panel(
            "Availability, 3 days",
            "Share of the gateway's answers to predictions and explanations that are not 5xx. Promised: 99.9 %.",
            "percentunit",
            (Query(f"1 - visionserve:availability_errors:ratio_rate3d{{{SCOPE}}}", "{{namespace}} {{job}}"),),
            kind="stat",
            width=4,
            steps=bad_below(0.998, 0.999),
        ),
        Panel(
            "Answered within 0.25 s, 3 days",
            "Share of the answers that took at most 0.25 s at the gateway. Promised: 99 %.",
            "percentunit",
            (Query(f"1 - visionserve:latency_errors:ratio_rate3d{{{SCOPE}}}", "{{namespace}} {{job}}"),),
            kind="stat",
            width=4,
            steps=bad_below(0.98, 0.99),
        ),
        Panel(
            "Availability: burn rate",
            "How many times faster than allowed the error budget of 0.1 % is spent. 1 spends a month's in a month; "
            "over 14.4 for an hour or 6 for six hours is an alert.",
            "none",
            _burn("availability", 0.001),
            steps=bad_above(1, 6),
        ),
        Panel(
            "Latency: burn rate",
            "How many times faster than allowed the budget of 1 % slow answers is spent; read as on the left.",
            "none",
            _burn("latency", 0.01),
            steps=bad_above(1, 6),
        ),
    ),
)
_TRAFFIC = Row(
    "Traffic",
    (
        Panel(
            "Requests by route",
            "Requests per second that the gateway answered, whatever the status.",
            "reqps",
            (Query(rate("gateway_requests_total", SCOPE, "route"), "{{route}}"),),
        ),
        Panel(
            "Requests by status",
            "Predictions and explanations per second by HTTP status.",
            "reqps",
            (Query(rate("gateway_requests_total", ANSWERED, "status"), "{{status}}"),),
            stacked=True,
        ),
        Panel(
            "Images by model",
            "Images classified per second; a request may carry sixteen.",
            "ops",
            (Query(rate("visionserve_predictions_total", MODEL, "model"), "{{model}}"),),
        ),
    ),
)
_ERRORS = Row(
    "Errors",
    (
        Panel(
            "Failed: 5xx",
            "Share of predictions and explanations that the service failed, over 5 minutes. The budget is 0.1 %.",
            "percentunit",
            (Query(f"visionserve:availability_errors:ratio_rate5m{{{SCOPE}}}", "{{namespace}} {{job}}"),),
            steps=bad_above(0.001, 0.0144),
        ),
        Panel(
            "Rejected: 429",
            "Share of the requests that the gateway rejected as too many, over 5 minutes: capacity is short.",
            "percentunit",
            (Query(f"visionserve:shed_requests:ratio_rate5m{{{SCOPE}}}", "{{namespace}} {{job}}"),),
            steps=bad_above(0.01, 0.05),
        ),
        Panel(
            "Handler's answers by code",
            "Requests per second that the handler answered with an error, by machine code: what clients send wrongly.",
            "reqps",
            (Query(rate("visionserve_requests_total", f'{MODEL},code!="ok"', "code"), "{{code}}"),),
            stacked=True,
        ),
    ),
)
_LATENCY = Row(
    "Latency",
    (
        Panel(
            "At the gateway",
            "Seconds from a request's arrival at the gateway to its answer, predictions and explanations together.",
            "s",
            tuple(
                Query(quantile(share, "gateway_request_duration_seconds", ANSWERED), name)
                for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
            ),
            steps=bad_above(0.1, 0.25),
        ),
        Panel(
            "By stage, mean",
            "Where the time goes. Queue is per request, decode and inference are per batch of the handler.",
            "s",
            (
                Query(mean("gateway_queue_seconds", SCOPE, "job"), "queue"),
                Query(mean("visionserve_decode_seconds", MODEL, "job"), "decode"),
                Query(mean("visionserve_inference_seconds", MODEL, "job"), "inference"),
            ),
            stacked=True,
        ),
        Panel(
            "By stage, p99",
            "The slowest hundredth of each stage; the stages' hundredths are not the same requests and do not add up.",
            "s",
            (
                Query(quantile(0.99, "gateway_queue_seconds", SCOPE), "queue"),
                Query(quantile(0.99, "visionserve_decode_seconds", MODEL), "decode"),
                Query(quantile(0.99, "visionserve_inference_seconds", MODEL), "inference"),
            ),
        ),
    ),
)
_QUEUE = Row(
    "Batches and queue",
    (
        Panel(
            "Images per batch",
            "Near 1 the network idles between requests, near the archive's batchSize the queue feeds it well.",
            "none",
            (
                Query(mean("visionserve_batch_size", MODEL, "model"), "{{model}}, mean"),
                Query(quantile(0.9, "visionserve_batch_size", MODEL), "p90"),
            ),
        ),
        Panel(
            "Waiting for a worker",
            "Mean seconds of a request between the gateway and the handler. Over 0.1 s an alert asks for more workers.",
            "s",
            (Query(f"visionserve:queue_seconds:mean5m{{{SCOPE}}}", "{{namespace}} {{job}}"),),
            steps=bad_above(0.05, 0.1),
        ),
        Panel(
            "Waiting, as a share of the answer's time",
            "About half when idle, since a few milliseconds of hand-over count as waiting; towards 1 under overload.",
            "percentunit",
            (Query(f"visionserve:queue_seconds:share5m{{{SCOPE}}}", "{{namespace}} {{job}}"),),
            maximum=1,
        ),
    ),
)
_SATURATION = Row(
    "Saturation",
    (
        Panel(
            "In flight",
            "Requests between arrival and answer, by instance (Little's law). The autoscalers look at this; "
            "the gateway rejects what exceeds 64.",
            "none",
            (Query(f"visionserve:in_flight:rate1m{{{SCOPE}}}", "{{instance}}"),),
            steps=bad_above(32, 51),
        ),
        Panel(
            "Workers",
            "Workers that answer, and those that load or are dead.",
            "none",
            (Query(f"sum by (model, state) (visionserve_workers{{{MODEL}}})", "{{model}} {{state}}"),),
        ),
        Panel(
            "Worker restarts in the last hour",
            "A restart takes seconds and fails the batch that the worker held; three in an hour are an alert.",
            "none",
            (
                Query(
                    f"sum by (instance, model) (increase(visionserve_worker_restarts_total{{{MODEL}}}[1h]))",
                    "{{instance}} {{model}}",
                ),
            ),
            steps=bad_above(1, 3),
        ),
        Panel(
            "Instances ready",
            "Instances whose every worker has answered a test prediction, and those that drain.",
            "none",
            (
                Query(f"sum by (job) (visionserve_ready{{{SCOPE}}})", "ready"),
                Query(f"sum by (job) (visionserve_draining{{{SCOPE}}})", "draining"),
            ),
            width=12,
        ),
        Panel(
            "Start to first answer",
            "Seconds from an instance's start to its first test prediction.",
            "s",
            (Query(f"visionserve_start_seconds{{{SCOPE}}}", "{{instance}}"),),
            width=12,
        ),
    ),
)
_DRIFT = Row(
    "Drift",
    (
        Panel(
            "Novelty, mean",
            "How unlike the training images the last hour's are, 0-1, and the mean of the evaluation.",
            "none",
            (
                Query(f"visionserve:novelty:mean1h{{{MODEL}}}", "{{model}}"),
                Query('visionserve:reference_novelty:mean{model=~"$model"}', "{{model}}, expected"),
            ),
            maximum=1,
        ),
        Panel(
            "Novelty above 0.95",
            "Share of the last hour's images; 5 % are expected, over 12 % is an alert.",
            "percentunit",
            (Query(f"visionserve:novelty:share_above_095_1h{{{MODEL}}}", "{{model}}"),),
            steps=bad_above(0.08, 0.12),
            maximum=1,
        ),
        Panel(
            "Label mix: stability index",
            "PSI of the last day's labels against the reference: below 0.1 the same mix, above 0.25 another one. Of "
            "N images chance alone makes about labels / N.",
            "none",
            (Query(f"visionserve:label_mix:psi1d{{{MODEL}}}", "{{model}}"),),
            steps=bad_above(0.1, 0.25),
        ),
        Panel(
            "Most frequent labels",
            "The ten labels answered most in the last day, as shares of all images.",
            "percentunit",
            (Query(f"topk(10, visionserve:label:share1d{{{MODEL}}})", "{{label}}"),),
            width=12,
        ),
        Panel(
            "Labels furthest from the reference",
            "Share in the traffic less share in the reference, the ten labels that differ most.",
            "percentunit",
            (
                Query(
                    f"topk(10, abs(visionserve:label:share1d{{{MODEL}}} - on (model, label) group_left () "
                    'visionserve:reference_label:share{model=~"$model"}))',
                    "{{label}}",
                ),
            ),
            width=12,
        ),
    ),
)
_VERSIONS = Row(
    "Versions",
    (
        Panel(
            "What is served where",
            "Model, version and the card's digest by instance. All rows of a model agree once a roll-out has ended.",
            "none",
            (Query(f"max by (namespace, instance, model, version, digest) (visionserve_model_info{{{MODEL}}})", ""),),
            kind="table",
            width=24,
        ),
    ),
)
ROWS = (_PROMISES, _TRAFFIC, _ERRORS, _LATENCY, _QUEUE, _SATURATION, _DRIFT, _VERSIONS)
