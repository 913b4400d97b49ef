"""What the package offers: its verbs, what they take and return, its errors. `sdbatch` has all of it by these names.

A worker imports some rooms of the package and none of this, which would cost it a quarter of a second and some memory;
see `sdbatch/__init__.py`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sdbatch.api import (
    BuildReport,
    audit,
    build_brief,
    build_manifest,
    cancel,
    check,
    cost,
    count_brief,
    deliver,
    failures,
    gc,
    grid,
    init,
    list_models,
    load_job,
    metadata,
    open_asset,
    pin_models,
    plan,
    plan_grid,
    preview_brief,
    redo,
    report,
    reproduce,
    review,
    run,
    runs,
    status,
    submit,
    takedown,
    trace,
    verify,
    verify_delivery,
    watch,
)
from sdbatch.campaign.gc import GcReport
from sdbatch.campaign.verify import VerifyReport
from sdbatch.checkpoints import Pin
from sdbatch.deliver.settings import Delivery
from sdbatch.driver.check import CheckReport
from sdbatch.driver.cost import CostReport
from sdbatch.driver.forecast import PlanReport
from sdbatch.driver.models import ModelReport
from sdbatch.driver.one_run.records import RunResult
from sdbatch.driver.picking import Selection
from sdbatch.driver.rows.briefs import BriefCount
from sdbatch.errors import (
    AssetConflict,
    BlankOutput,
    CampaignHeld,
    ClusterRefused,
    DeadlineExceeded,
    DecoderUnavailable,
    DeviceLost,
    EncodeFailed,
    GenerationFailed,
    GpuUnusable,
    Interrupted,
    JobError,
    LeaseLost,
    LocalFault,
    LoraRefused,
    MachineError,
    ManifestError,
    ModelError,
    ModelLoadFailed,
    NewerFormat,
    OutOfMemory,
    Problem,
    PromptTooLong,
    RowError,
    SdbatchError,
    SourceChanged,
    SourceMissing,
    SourceTooLarge,
    SourceTooShort,
    SourceUnreadable,
    StoreRefused,
    StoreUnavailable,
    UserError,
    WarningsRefused,
    WatermarkFailed,
    WorkerCrash,
    WorkersUnavailable,
    WorkersUnlike,
)
from sdbatch.job import Job
from sdbatch.report.progress import Progress

if TYPE_CHECKING:
    from sdbatch.driver.audit import AuditReport
    from sdbatch.driver.delivery.plan import DeliverReport
    from sdbatch.driver.grids import GridReport
    from sdbatch.driver.reproduce import ReproduceReport
    from sdbatch.driver.review import ReviewReport
    from sdbatch.driver.submit import SubmitReport
    from sdbatch.driver.takedown import TakedownReport
    from sdbatch.driver.trace import TraceReport
    from sdbatch.driver.verify_delivery import DeliveryVerifyReport
    from sdbatch.encode.image import Picture

__version__ = version("sdbatch")

_WHERE_USED = {
    "AuditReport": "sdbatch.driver.audit",
    "DeliverReport": "sdbatch.driver.delivery.plan",
    "DeliveryVerifyReport": "sdbatch.driver.verify_delivery",
    "GridReport": "sdbatch.driver.grids",
    "Picture": "sdbatch.encode.image",
    "ReproduceReport": "sdbatch.driver.reproduce",
    "ReviewReport": "sdbatch.driver.review",
    "SubmitReport": "sdbatch.driver.submit",
    "TakedownReport": "sdbatch.driver.takedown",
    "TraceReport": "sdbatch.driver.trace",
}
"""Classes whose modules are imported when somebody asks for them: `sdbatch check` needs none of them."""


def __getattr__(name: str) -> Any:
    if name in _WHERE_USED:
        return getattr(import_module(_WHERE_USED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AssetConflict",
    "AuditReport",
    "BlankOutput",
    "BriefCount",
    "BuildReport",
    "CampaignHeld",
    "CheckReport",
    "ClusterRefused",
    "CostReport",
    "DeadlineExceeded",
    "DecoderUnavailable",
    "DeliverReport",
    "Delivery",
    "DeliveryVerifyReport",
    "DeviceLost",
    "EncodeFailed",
    "GcReport",
    "GenerationFailed",
    "GpuUnusable",
    "GridReport",
    "Interrupted",
    "Job",
    "JobError",
    "LeaseLost",
    "LocalFault",
    "LoraRefused",
    "MachineError",
    "ManifestError",
    "ModelError",
    "ModelLoadFailed",
    "ModelReport",
    "NewerFormat",
    "OutOfMemory",
    "Picture",
    "Pin",
    "PlanReport",
    "Problem",
    "Progress",
    "PromptTooLong",
    "ReproduceReport",
    "ReviewReport",
    "RowError",
    "RunResult",
    "SdbatchError",
    "Selection",
    "SourceChanged",
    "SourceMissing",
    "SourceTooLarge",
    "SourceTooShort",
    "SourceUnreadable",
    "StoreRefused",
    "StoreUnavailable",
    "SubmitReport",
    "TakedownReport",
    "TraceReport",
    "UserError",
    "VerifyReport",
    "WarningsRefused",
    "WatermarkFailed",
    "WorkerCrash",
    "WorkersUnavailable",
    "WorkersUnlike",
    "__version__",
    "audit",
    "build_brief",
    "build_manifest",
    "cancel",
    "check",
    "cost",
    "count_brief",
    "deliver",
    "failures",
    "gc",
    "grid",
    "init",
    "list_models",
    "load_job",
    "metadata",
    "open_asset",
    "pin_models",
    "plan",
    "plan_grid",
    "preview_brief",
    "redo",
    "report",
    "reproduce",
    "review",
    "run",
    "runs",
    "status",
    "submit",
    "takedown",
    "trace",
    "verify",
    "verify_delivery",
    "watch",
]
