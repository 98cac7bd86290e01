"""What fetches, proves and keeps secrets; who serves them is another matter."""

from __future__ import annotations

from dataclasses import dataclass

from clef_agent.cache.keeper import CopyKeeper
from clef_agent.cache.memory import Memory
from clef_agent.clock import Clock
from clef_agent.decrypt import Decryptor
from clef_agent.errors import NotLoaded
from clef_agent.kms.services import KeyServices
from clef_agent.provider import SecretsProvider
from clef_agent.refresh import Refresher
from clef_agent.sources.base import Source
from clef_agent.telemetry import events
from clef_agent.telemetry.base import Telemetry
from clef_agent.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """The parts that every lifecycle has, each already made, none yet at work.

    ``emit`` tells all who listen.
    """

    source: Source
    key_services: KeyServices
    decryptor: Decryptor
    memory: Memory
    keeper: CopyKeeper
    refresher: Refresher
    provider: SecretsProvider
    clock: Clock
    metrics: Metrics
    telemetry: Telemetry
    emit: events.Emit

    async def aclose(self) -> None:
        """Lets go of secrets, and of connections to others; takes as long as telemetry may."""
        await self.refresher.abandon()
        self.memory.wipe(NotLoaded)
        await self.source.aclose()
        await self.key_services.aclose()
        await self.telemetry.close()
