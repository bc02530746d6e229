"""The Kubernetes API by the official client, behind `providers.ports.Cluster`.

Invariant: importing this package, or any module of it, imports neither `kubernetes` nor `urllib3`: a command that
needs no cluster starts without them.
"""

from __future__ import annotations

from providers.kubernetes.client import KubernetesCluster
from providers.kubernetes.clock import SystemClock
from providers.kubernetes.connect import connect
from providers.kubernetes.kubeconfig import ConnectError

__all__ = ["ConnectError", "KubernetesCluster", "SystemClock", "connect"]
