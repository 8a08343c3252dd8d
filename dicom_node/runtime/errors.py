"""The node's errors, drawn once. The class says whether trying again can help; its docstring is its default message.

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
    """The node could not do this; its log says more."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.__doc__)


class ConfigError(NodeError):
    """The configuration is wrong; `segmenter-worker check` names the file and the key."""


class Missing(NodeError):
    """Something that is needed is not installed or not there; `segmenter-worker check` says what."""


class LedgerUnusable(Missing):
    """The ledger is damaged, written by a newer program, or not writable; run `check`, then restore a backup."""


class SpoolError(NodeError):
    """The file could not be written safely to the spool; check the disk and the rights of node.directory."""


class DiskReserve(SpoolError):
    """Free disk space is below node.reserve_mb; make room on the disk or purge finished jobs."""


class NodeAway(NodeError):
    """The node cannot be reached, or does not accept this worker; check work.node and work.token_file."""


class LostClaim(NodeError):
    """This claim is no longer valid: another worker has taken the job over. Nothing was changed."""


class SourceDamaged(NodeError):
    """The stored film is not what arrived: its sha256 differs. Check the disk, then send the film again."""
