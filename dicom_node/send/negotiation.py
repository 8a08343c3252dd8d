"""What a destination accepts, before anything is sent to it: C-ECHO, and the SOP classes of our results.

An association proposes all of them at once, as the sender would, and is released: nothing is stored. An archive that checks
the calling AE title only at the C-STORE is not found this way; only the outcome of earlier tries shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.dimse.contexts import VERIFICATION, echo_context
from dicom_node.dimse.status import Verdict
from dicom_node.runtime.config import Config
from dicom_node.send.associate import NoAssociation, associate
from dicom_node.send.storage_scu import storage_context
from dicom_node.storage.destinations import Router
from segmenter.objects.kinds import SOP_CLASSES


@dataclass(frozen=True)
class Negotiated:
    """`ok`: it accepts every SOP class that it is to get. `answered`: the destination was reached."""

    ok: bool
    text: str
    answered: bool = True


def negotiate(config: Config, destination: str) -> Negotiated:
    """One association with the peer `destination`, released without a C-STORE (PS3.8 9.3.2). Never raises for the network."""
    peer = config.peers[destination]
    roles = list(dict.fromkeys(kind.role for kind in Router.of(config).kinds_of(destination)))
    contexts = [echo_context(), *(storage_context(SOP_CLASSES[role], ExplicitVRLittleEndian) for role in roles)]
    try:
        association = associate(config, destination, contexts)
    except NoAssociation as why:
        if why.verdict is Verdict.REFUSED:
            return Negotiated(False, _refuses(config, destination, roles))
        absent = "rejected" not in str(why) and "TLS" not in str(why)
        return Negotiated(False, f"{why} at {peer.host}:{peer.port}", answered=not absent)
    accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
    status = association.send_c_echo().get("Status") if VERIFICATION in accepted else None
    association.close()
    missing = [role for role in roles if SOP_CLASSES[role] not in accepted]
    if missing:
        return Negotiated(False, _refuses(config, destination, missing))
    if VERIFICATION in accepted and status != 0x0000:
        return Negotiated(False, f"C-ECHO was answered with {'nothing' if status is None else f'{status:04X}'}")
    echo = "answers C-ECHO" if VERIFICATION in accepted else "does not offer C-ECHO"
    return Negotiated(True, f"{echo}, accepts {', '.join(roles)}")


def _refuses(config: Config, destination: str, roles: list[str]) -> str:
    names = ", ".join(f"{UID(SOP_CLASSES[role]).name} ({role})" for role in roles)
    title = config.send.ae_title
    return (
        f"does not accept {names} from {title}: enable {'it' if len(roles) == 1 else 'them'} there for our AE title {title}, "
        f"or leave {'it' if len(roles) == 1 else 'them'} out of peers.{destination}.objects"
    )
