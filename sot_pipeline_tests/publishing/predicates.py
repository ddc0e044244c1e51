"""A predicate for folders whose content does not matter."""

from sot_pipeline.publishing.provenance import (
    BUILD_TYPE,
    BuildDefinition,
    Builder,
    DataCounts,
    ExternalParameters,
    InternalParameters,
    Metadata,
    PersonalDataCounts,
    Predicate,
    RunDetails,
)

PREDICATE = Predicate(
    build_definition=BuildDefinition(
        build_type=BUILD_TYPE,
        external_parameters=ExternalParameters(task="t", settings={}),
        internal_parameters=InternalParameters(artefacts={}),
        resolved_dependencies=[],
    ),
    run_details=RunDetails(
        builder=Builder(id="pkg:pypi/sot-pipeline@0", version={}),
        metadata=Metadata(finished_on="2026-01-31T00:00:00+00:00"),
    ),
    sot_data=DataCounts(
        data_fingerprint="f",
        row_files={},
        rows_read=0,
        rows_rejected=0,
        rows_kept=0,
        rows_removed=0,
        rows_as_read=True,
        personal_data=PersonalDataCounts(found={}, rows_with=0, redacted=False, remaining={}),
    ),
)
