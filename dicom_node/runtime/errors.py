"""The node's errors, drawn once. The class says whether trying again can help; the docstring is the message.

NodeError
├── ConfigError        the configuration is wrong           -> exit 2
├── Missing            something needed is not there        -> exit 4
│   └── LedgerUnusable it is damaged, or of a newer program -> exit 4
├── SpoolError         bytes could not be made safe         -> the sender is told to try again
│   └── DiskReserve    free space is under the reserve
├── NodeAway           the node cannot be reached           -> nothing is charged, the lease runs out
├── LostClaim          another worker owns the job now      -> stop quietly, nothing was changed
└── SourceDamaged      the stored film is not what arrived  -> the job fails, the bytes are kept
"""


class NodeError(Exception):
    """Something the node could not do."""


class ConfigError(NodeError):
    """The configuration is wrong; the message names file and key."""


class Missing(NodeError):
    """Something that is needed is not there; the message says how to get it."""


class LedgerUnusable(Missing):
    """The ledger is damaged, of a newer program, or not ours to write; the message says what to do."""


class SpoolError(NodeError):
    """The bytes could not be made safe."""


class DiskReserve(SpoolError):
    """Free space is under the reserve of node.reserve_mb."""


class NodeAway(NodeError):
    """The node on the other machine cannot be reached, or does not let us in."""


class LostClaim(NodeError):
    """The owner token is no longer valid: another worker has taken the job over."""


class SourceDamaged(NodeError):
    """The stored film does not have the sha256 with which it arrived."""
