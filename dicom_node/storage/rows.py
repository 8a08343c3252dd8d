"""Rows of the ledger as the frozen values of job.py."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import fields

from dicom_node.storage.records import Arrival, Delivery, DeliveryState, Job, State, StoredObject


def to_job(row: sqlite3.Row) -> Job:
    arrival = Arrival(
        sop_instance_uid=row["sop_instance_uid"],
        sop_class_uid=row["sop_class_uid"],
        transfer_syntax_uid=row["transfer_syntax_uid"],
        dataset_sha256=row["dataset_sha256"],
        path=row["path"] or "",
        size=row["size"],
        calling_ae=row["calling_ae"],
        called_ae=row["called_ae"],
        host=row["host"],
        association_id=row["association_id"],
        queue=row["queue"],
        mode=row["mode"],
        rule=row["rule"],
        why=row["why"],
        destinations=None if row["destinations"] is None else tuple(json.loads(row["destinations"])),
    )
    known = {
        "job_id": row["id"],
        "arrival": arrival,
        "state": State(row["state"]),
        "notes": tuple(json.loads(row["notes"])),
    }
    return Job(**known, **{one.name: row[one.name] for one in fields(Job) if one.name not in known})


def to_object(row: sqlite3.Row) -> StoredObject:
    names = ("role", "variant", "sop_class_uid", "sop_instance_uid", "sha256", "path", "size", "intended_use")
    return StoredObject(**{name: row[name] for name in names})


def to_delivery(row: sqlite3.Row) -> Delivery:
    same = ("delivery_id", "job_id", "destination", "attempts", "status", "reason", "created_at", "next_try_at", "committed_at",
            "crashes")  # fmt: skip
    return Delivery(object=to_object(row), state=DeliveryState(row["state"]), **{name: row[name] for name in same})
