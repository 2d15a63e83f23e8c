"""The JSON Schema of every document, for the OpenAPI document: made from the types themselves."""

from __future__ import annotations

from typing import Any

import msgspec

from pod_integrate.terms.experiment import Experiment, ExperimentAsk, ExperimentReport
from pod_integrate.terms.trace import TraceMessage
from tuner.messages import RecheckPairs
from tuner.orders import BucketOrder, PinOrder, PromoteOrder, ServerOrder, TableOrder
from tuner.view import documents

_REFERENCES = "#/components/schemas/{name}"
_TYPES = (
    documents.Overview,
    documents.Trials,
    documents.Samples,
    documents.Taken,
    documents.Judged,
    documents.Noted,
    documents.Obeyed,
    Experiment,
    ExperimentAsk,
    ExperimentReport,
    ServerOrder,
    BucketOrder,
    PromoteOrder,
    PinOrder,
    TableOrder,
    documents.Health,
    documents.Failure,
    RecheckPairs,
    TraceMessage,
)


def components() -> dict[str, Any]:
    """Schemas by name: the types above and those that they hold."""
    _, found = msgspec.json.schema_components(_TYPES, ref_template=_REFERENCES)
    return found


def reference(document: type[msgspec.Struct]) -> dict[str, str]:
    """Where the schema of one of the types above is."""
    return {"$ref": _REFERENCES.format(name=document.__name__)}
