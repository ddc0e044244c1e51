"""Licences as sources state them, in the identifiers of the Hugging Face hub and of SPDX."""

import re
from collections.abc import Iterable

NOT_STATED = "not stated"

# hub identifier -> SPDX identifier, of huggingface.co/docs/hub/repositories-licenses and
# spdx.org/licenses; identifiers of the hub without one of SPDX stand in _OTHER_HUB
_SPDX = {
    "afl-3.0": "AFL-3.0",
    "agpl-3.0": "AGPL-3.0-only",
    "apache-2.0": "Apache-2.0",
    "artistic-2.0": "Artistic-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-3-clause-clear": "BSD-3-Clause-Clear",
    "bsl-1.0": "BSL-1.0",
    "c-uda": "C-UDA-1.0",
    "cc0-1.0": "CC0-1.0",
    "cc-by-2.0": "CC-BY-2.0",
    "cc-by-2.5": "CC-BY-2.5",
    "cc-by-3.0": "CC-BY-3.0",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa-3.0": "CC-BY-SA-3.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc-by-nc-2.0": "CC-BY-NC-2.0",
    "cc-by-nc-3.0": "CC-BY-NC-3.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nd-4.0": "CC-BY-ND-4.0",
    "cc-by-nc-nd-3.0": "CC-BY-NC-ND-3.0",
    "cc-by-nc-nd-4.0": "CC-BY-NC-ND-4.0",
    "cc-by-nc-sa-2.0": "CC-BY-NC-SA-2.0",
    "cc-by-nc-sa-3.0": "CC-BY-NC-SA-3.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0",
    "cdla-permissive-1.0": "CDLA-Permissive-1.0",
    "cdla-permissive-2.0": "CDLA-Permissive-2.0",
    "cdla-sharing-1.0": "CDLA-Sharing-1.0",
    "ecl-2.0": "ECL-2.0",
    "epl-1.0": "EPL-1.0",
    "epl-2.0": "EPL-2.0",
    "eupl-1.1": "EUPL-1.1",
    "eupl-1.2": "EUPL-1.2",
    "gfdl": "GFDL-1.3-only",
    "gpl-2.0": "GPL-2.0-only",
    "gpl-3.0": "GPL-3.0-only",
    "isc": "ISC",
    "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-3.0": "LGPL-3.0-only",
    "mit": "MIT",
    "mpl-2.0": "MPL-2.0",
    "ms-pl": "MS-PL",
    "ncsa": "NCSA",
    "odbl": "ODbL-1.0",
    "odc-by": "ODC-By-1.0",
    "ofl-1.1": "OFL-1.1",
    "osl-3.0": "OSL-3.0",
    "pddl": "PDDL-1.0",
    "postgresql": "PostgreSQL",
    "unlicense": "Unlicense",
    "wtfpl": "WTFPL",
    "zlib": "Zlib",
}
_OTHER_HUB = frozenset(
    {
        "bigcode-openrail-m", "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "cc", "gemma",
        "gpl", "intel-research", "lgpl", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3",
        "llama4", "lppl-1.3c", "open-mdw", "openrail", "openrail++", "other", "unknown",
    }
)  # fmt: skip
_HUB_OF_SPDX = {spdx.lower(): hub for hub, spdx in _SPDX.items()}


def hub_licence(licence: str) -> str:
    """The identifier that a card on the hub gives for a licence as it was stated: "other" for one
    that the hub does not know, "unknown" where none was stated."""
    name = re.sub(r"[\s_]+", "-", licence.strip().lower())
    if licence in ("", NOT_STATED):
        return "unknown"
    if name in _SPDX or name in _OTHER_HUB:
        return name
    return _HUB_OF_SPDX.get(name, "other")


def hub_licences(licences: Iterable[str]) -> str | list[str]:
    """Of several: one identifier, or a list of them."""
    found = sorted({hub_licence(licence) for licence in licences}) or ["unknown"]
    return found[0] if len(found) == 1 else found


def licence_address(licence: str) -> str:
    """The page of a licence at spdx.org, or its own words where SPDX does not know it."""
    spdx = _SPDX.get(hub_licence(licence))
    return f"https://spdx.org/licenses/{spdx}.html" if spdx else licence
