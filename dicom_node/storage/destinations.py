"""Where the results of a film go, and which objects each destination gets (config: [send], [peers], [[rules]])."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicom_node.runtime.config import Config
from dicom_node.runtime.config_sections import Peer, Send
from dicom_node.storage.records import Arrival
from segmenter.objects.kinds import ObjectKind, kinds_for

TO_SENDER = "@sender"


@dataclass(frozen=True)
class Route:
    """A destination (a name in [peers]) and the kinds of object that it gets."""

    destination: str
    kinds: tuple[ObjectKind, ...] = tuple(ObjectKind)


@dataclass(frozen=True)
class Router:
    """The destinations of a configuration; `peers` by name."""

    send: Send
    peers: Mapping[str, Peer]

    @classmethod
    def of(cls, config: Config) -> Router:
        """By [send] and [peers]."""
        return cls(config.send, config.peers)

    def routes(self, arrival: Arrival) -> tuple[Route, ...]:
        """Where the results of a film are sent, or, in shadow mode, would be sent. A sender without an entry in [peers] is
        included: its deliveries name the problem."""
        named = self.send.destinations if arrival.destinations is None else arrival.destinations
        names = dict.fromkeys(arrival.calling_ae if name == TO_SENDER else name for name in named)
        return tuple(Route(name, kinds_for(self._objects_of(name))) for name in names)

    def kinds(self, arrival: Arrival) -> tuple[ObjectKind, ...]:
        """The objects to make: all that any destination gets; without destinations, those of send.objects."""
        routes = self.routes(arrival)
        wanted = {kind for route in routes for kind in route.kinds} if routes else set(kinds_for(self.send.objects))
        return tuple(kind for kind in ObjectKind if kind in wanted)

    def all_kinds(self, destinations: Sequence[str]) -> tuple[ObjectKind, ...]:
        """All that any of `destinations` could get, from any sender; without destinations, those of send.objects."""
        peers = [name for one in destinations for name in (self.peers if one == TO_SENDER else (one,))]
        found = {kind for name in peers for kind in kinds_for(self._objects_of(name))}
        return tuple(kind for kind in ObjectKind if kind in (found if destinations else kinds_for(self.send.objects)))

    def kinds_of(self, destination: str) -> tuple[ObjectKind, ...]:
        """What a destination gets of a positive film."""
        return kinds_for(self._objects_of(destination))

    def _objects_of(self, name: str) -> tuple[str, ...]:
        peer = self.peers.get(name)
        return self.send.objects if peer is None or peer.objects is None else peer.objects
