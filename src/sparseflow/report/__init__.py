"""Reports: tables, figures and one HTML page from a store, also while a study is still running."""

from __future__ import annotations

from pathlib import Path

from sparseflow.core import BadStore
from sparseflow.report import arms as _arms  # noqa: F401  (enters its report)
from sparseflow.report import compare as _compare  # noqa: F401
from sparseflow.report import search as _search  # noqa: F401
from sparseflow.report import training as _training  # noqa: F401
from sparseflow.report.activations import activations_cells, activations_header, write_activations_report
from sparseflow.report.hessian import HESSIAN_HEADER, hessian_cells, write_hessian_report
from sparseflow.report.interpolate import INTERPOLATE_HEADER, interpolate_cells, write_interpolate_report
from sparseflow.report.landscape import LANDSCAPE_HEADER, landscape_cells, write_landscape_report
from sparseflow.report.mask_layers import LAYER_HEADER, MaskSet, total_cells
from sparseflow.report.masks import OVERLAP_HEADER, overlap_cells, write_mask_report
from sparseflow.report.page import write_page
from sparseflow.report.registry import Report, Study, reports
from sparseflow.report.signal import SIGNAL_HEADER, signal_cells, write_signal_report
from sparseflow.report.similarity import SIMILARITY_HEADER, similarity_cells, write_similarity_report
from sparseflow.study import Store, now

__all__ = [
    "HESSIAN_HEADER",
    "INTERPOLATE_HEADER",
    "LANDSCAPE_HEADER",
    "LAYER_HEADER",
    "OVERLAP_HEADER",
    "SIGNAL_HEADER",
    "SIMILARITY_HEADER",
    "MaskSet",
    "Report",
    "Study",
    "activations_cells",
    "activations_header",
    "hessian_cells",
    "interpolate_cells",
    "landscape_cells",
    "overlap_cells",
    "reports",
    "signal_cells",
    "similarity_cells",
    "total_cells",
    "write_activations_report",
    "write_hessian_report",
    "write_interpolate_report",
    "write_landscape_report",
    "write_mask_report",
    "write_report",
    "write_signal_report",
    "write_similarity_report",
]


def write_report(store: Store, folder: Path, study: str | None = None) -> Path:
    """Write the report of a study of this store: `report.html`, CSV tables, `figures/`.

    Args:
        study: its name; default: the one last asked for.

    Returns:
        The path of the page.

    Raises:
        BadStore: if the store holds no study, or the folder cannot be written.
    """
    studies = store.studies()
    if not studies:
        raise BadStore(f"{store.label}: the results store holds no study yet")
    name, kind, content = next((found for found in studies if found[0] == study), studies[0])
    try:
        report = reports[kind](Study(name, content, store, folder))
        page = folder / "report.html"
        write_page(page, report.title, f"{name}, {now()[:16].replace('T', ' ')} UTC", report.sections)
    except OSError as error:
        raise BadStore(f"cannot write the report into {folder}: {error.strerror}") from None
    return page
