"""The calls about rollouts, and the verdicts that other rollout controllers ask for."""

import asyncio
from typing import Annotated, Literal

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.status_codes import HTTP_200_OK

from router.documents import Rollout
from router.errors import NotAdvancing
from router.http.access import needs
from router.http.control_plane import CREATE, MOVE, IfMatch, moved, tagged, write
from router.http.rollout_views import RolloutView, VerdictView, WebhookBody, rollout_view, verdict_view
from router.http.views import ExperimentView
from router.keys import Caller
from router.ledger.rollouts import RolloutRecord
from router.rollout.controller import By
from router.service import Service

Arm = Annotated[
    str | None, QueryParameter(description="The arm to judge beside the control; needed where there are several.")
]
Awaited = Annotated[
    Literal["advance", "rollback"],
    QueryParameter(description="The verdict that is answered with 200; any other with 409."),
]


@get("/v1/rollouts", tags=["rollouts"], **needs("read"))
async def list_rollouts(service: NamedDependency[Service]) -> list[RolloutView]:
    """List the rollouts, oldest first, with every step that they have taken."""
    return [_view(service, record) for record in await asyncio.to_thread(service.rollouts.rollouts)]


@get("/v1/rollouts/{name:str}", tags=["rollouts"], **needs("read", 404))
async def read_rollout(name: FromPath[str], service: NamedDependency[Service]) -> Response[RolloutView]:
    """Return one rollout: where it is, and every step that it has taken, with the numbers that decided."""
    return tagged(await asyncio.to_thread(lambda: _view(service, service.rollouts.rollout(name))))


@get("/v1/rollouts/{name:str}/verdict", tags=["rollouts"], **needs("read", 404))
async def read_stage_verdict(name: FromPath[str], service: NamedDependency[Service]) -> VerdictView:
    """Return what the evidence says now of the stage that a rollout is in, and what is still to be shown."""

    def judged() -> VerdictView:
        return verdict_view(service.rollouts.judge.stage(service.rollouts.rollout(name)))

    return await asyncio.to_thread(judged)


@post("/v1/rollouts", tags=["rollouts"], **CREATE)
async def create_rollout(
    data: JSONBody[Rollout], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Response[RolloutView]:
    """Create a rollout; it begins once no other one of its endpoint is under way."""
    record = await write(service, lambda: service.rollouts.create(data, actor=caller.actor))
    return tagged(await asyncio.to_thread(_view, service, record))


@post("/v1/rollouts/{name:str}/hold", status_code=HTTP_200_OK, tags=["rollouts"], **MOVE)
async def hold_rollout(
    name: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller], if_match: IfMatch = None
) -> Response[RolloutView]:
    """Stay in this stage until the rollout is resumed; a breached guardrail still ends it."""
    return await _moved(service, name, "hold", if_match, caller)


@post("/v1/rollouts/{name:str}/resume", status_code=HTTP_200_OK, tags=["rollouts"], **MOVE)
async def resume_rollout(
    name: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller], if_match: IfMatch = None
) -> Response[RolloutView]:
    """Go on after a hold; the stage's time begins anew, its evidence does not."""
    return await _moved(service, name, "resume", if_match, caller)


@post("/v1/rollouts/{name:str}/advance", status_code=HTTP_200_OK, tags=["rollouts"], **MOVE)
async def advance_rollout(
    name: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller], if_match: IfMatch = None
) -> Response[RolloutView]:
    """Enter the next stage whatever the evidence says."""
    return await _moved(service, name, "advance", if_match, caller)


@post("/v1/rollouts/{name:str}/rollback", status_code=HTTP_200_OK, tags=["rollouts"], **MOVE)
async def roll_back_rollout(
    name: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller], if_match: IfMatch = None
) -> Response[RolloutView]:
    """Take the candidate out at once; whoever was champion before is it again."""
    return await _moved(service, name, "rollback", if_match, caller)


@post("/v1/experiments/{name:str}/rollback", status_code=HTTP_200_OK, tags=["experiments"], **MOVE)
async def roll_back_experiment(
    name: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller], if_match: IfMatch = None
) -> Response[ExperimentView]:
    """End an experiment so that the champion serves everybody at once; with it ends the rollout that runs it."""
    return await moved(service, lambda: service.rollouts.roll_back_experiment(name, if_match, actor=caller.actor))


@get("/v1/experiments/{name:str}/verdict", tags=["experiments"], **needs("read", 404))
async def read_verdict(name: FromPath[str], service: NamedDependency[Service], arm: Arm = None) -> VerdictView:
    """Return whether an arm shall advance, be rolled back, or neither yet; for gates that read JSON."""
    return verdict_view(await asyncio.to_thread(service.rollouts.judge.experiment, name, arm))


@post("/v1/experiments/{name:str}/verdict", status_code=HTTP_200_OK, tags=["experiments"], **needs("read", 404, 409))
async def answer_webhook(
    name: FromPath[str],
    service: NamedDependency[Service],
    data: JSONBody[WebhookBody | None] = None,
    arm: Arm = None,
    verdict: Awaited = "advance",
) -> VerdictView:
    """Answer a gate that goes by the status alone: 200 for the verdict that it waits for, else 409."""
    judgement = await asyncio.to_thread(service.rollouts.judge.experiment, name, arm)
    if judgement.verdict != verdict:
        raise NotAdvancing(name, judgement.verdict, verdict, judgement.reasons)
    return verdict_view(judgement)


ROLLOUTS = [
    list_rollouts,
    read_rollout,
    read_stage_verdict,
    create_rollout,
    hold_rollout,
    resume_rollout,
    advance_rollout,
    roll_back_rollout,
    roll_back_experiment,
    read_verdict,
    answer_webhook,
]


async def _moved(service: Service, name: str, by: By, if_match: str | None, caller: Caller) -> Response[RolloutView]:
    record = await write(service, lambda: service.rollouts.move(name, by, if_match, actor=caller.actor))
    return tagged(await asyncio.to_thread(_view, service, record))


def _view(service: Service, record: RolloutRecord) -> RolloutView:
    return rollout_view(record, service.rollouts.transitions(record))
