"""What a run is to do, settled before anything runs: a new input surveyed, or an earlier run recognised.

Raises SettingsError, with what to do, for every difference that would mix two runs: another input, other fillings, an
output that some other program wrote.
"""

from collections.abc import Callable

from lowtide.app.run import manifest as state
from lowtide.app.run.job import Job
from lowtide.app.run.manifest import VERSION, Manifest, Round
from lowtide.app.run.reading import LineReader
from lowtide.app.run.source import Source, source_of
from lowtide.app.run.survey import survey
from lowtide.domain.errors import SettingsError
from lowtide.domain.ids import new_token
from lowtide.domain.limits import Limits

SCRATCH = "scratch"


def plan(job: Job, reader: LineReader, limits: Limits, tick: Callable[[int], None]) -> tuple[Manifest, Source]:
    """Return the run, new or resumed, and its input."""
    earlier = state.load(job.state)
    if earlier is None and job.output.exists():
        raise SettingsError(
            f"{job.output} exists and is not the output of a run that {job.state} knows; name another --output or "
            "remove it."
        )
    if earlier is not None:
        kept = earlier.rounds[0].file is not None
        _compare(job, earlier)
        return earlier, source_of(job.input, job.state, earlier.digest, kept_earlier=kept)
    source = source_of(job.input, job.state, None)
    found = survey(source, reader, limits, job.state / SCRATCH, tick)
    if found.problems:
        more = found.problem_count - len(found.problems)
        listed = "\n".join([*found.problems, f"… and {more:,} more"] if more else found.problems)
        raise SettingsError(f"Nothing was sent: {found.problem_count:,} problems in {job.input}.\n{listed}")
    if not found.requests:
        raise SettingsError(f"There is no request in {job.input}.")
    made = Manifest(
        version=VERSION,
        token=new_token(),
        digest=source.digest,
        recipe=job.fill.says(),
        rounds=[Round(file=source.file, cuts=found.cuts)],
    )
    state.save(job.state, made)
    return made, source


def _compare(job: Job, earlier: Manifest) -> None:
    """Refuse to go on with other fillings than those that the requests already sent were made with."""
    wanted = job.fill.says()
    if wanted != earlier.recipe:
        before = " ".join(f"{flag} {value!r}" for flag, value in earlier.recipe.items()) or "none of these flags"
        raise SettingsError(
            f"The run in {job.state} began with {before}. Give it the same to go on; or begin anew with another "
            "--output."
        )
