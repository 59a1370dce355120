"""What a manifest for KubeRay may say: the fields used here of ray.io/v1 and of Kubernetes' pods, no others.

Written after the CRD reference of KubeRay's release 1.6.2 and Kubernetes' API reference 1.28. An API server
drops what it does not know without a word; here an unknown key is an error. Stricter than they are where
Ballast wants it: every container has requests, limits and a security context, mounts name volumes.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Quantity = Annotated[str, StringConstraints(pattern=r"^\d+(m|Mi|Gi)?$")]
Port = Annotated[int, Field(ge=1, le=65_535)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: Name
    labels: dict[str, str] = {}


class SecretKey(Strict):
    name: Name
    key: str


class Source(Strict):
    secretKeyRef: SecretKey  # never `optional`: without the secret the pod must not start


class Variable(Strict):
    name: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")]
    value: str | None = None
    valueFrom: Source | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        assert (self.value is None) != (self.valueFrom is None), self.name
        return self


class Amounts(Strict):
    cpu: Quantity
    memory: Quantity


class Resources(Strict):
    requests: Amounts
    limits: Amounts


class Capabilities(Strict):
    drop: list[Literal["ALL"]] = Field(min_length=1)


class ContainerSecurity(Strict):
    allowPrivilegeEscalation: Literal[False]
    privileged: Literal[False]
    capabilities: Capabilities


class Seccomp(Strict):
    type: Literal["RuntimeDefault"]


class PodSecurity(Strict):
    runAsNonRoot: Literal[True]
    runAsUser: Annotated[int, Field(gt=0)]
    runAsGroup: Annotated[int, Field(gt=0)]
    fsGroup: Annotated[int, Field(gt=0)]
    seccompProfile: Seccomp


class ContainerPort(Strict):
    name: Annotated[str, StringConstraints(max_length=15)]
    containerPort: Port


class HttpGet(Strict):
    path: Annotated[str, StringConstraints(pattern=r"^/")]
    port: Port


class Probe(Strict):
    httpGet: HttpGet
    initialDelaySeconds: Annotated[int, Field(ge=0)] = 0
    periodSeconds: Annotated[int, Field(ge=1)] = 10
    timeoutSeconds: Annotated[int, Field(ge=1)] = 1
    failureThreshold: Annotated[int, Field(ge=1)] = 3


class Mount(Strict):
    name: Name
    mountPath: Annotated[str, StringConstraints(pattern=r"^/")]


class Claim(Strict):
    claimName: Name


class EmptyDir(Strict):
    medium: Literal["Memory"] | None = None
    sizeLimit: Quantity


class Volume(Strict):
    name: Name
    persistentVolumeClaim: Claim | None = None
    emptyDir: EmptyDir | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        assert (self.persistentVolumeClaim is None) != (self.emptyDir is None), self.name
        return self


class Container(Strict):
    name: Name
    image: str
    resources: Resources
    securityContext: ContainerSecurity
    ports: list[ContainerPort] = []
    env: list[Variable] = []
    volumeMounts: list[Mount] = []
    readinessProbe: Probe | None = None
    livenessProbe: Probe | None = None


class PodSpec(Strict):
    containers: list[Container] = Field(min_length=1)
    securityContext: PodSecurity
    volumes: list[Volume] = []
    restartPolicy: Literal["Always", "OnFailure", "Never"] | None = None
    terminationGracePeriodSeconds: Annotated[int, Field(ge=0)] | None = None
    automountServiceAccountToken: Literal[False] | None = None

    @model_validator(mode="after")
    def _mounts_are_volumes(self) -> Self:
        volumes = [volume.name for volume in self.volumes]
        assert len(set(volumes)) == len(volumes), volumes
        for container in self.containers:
            assert {mount.name for mount in container.volumeMounts} <= set(volumes), container.name
        return self


class Template(Strict):
    spec: PodSpec


class AuthOptions(Strict):
    mode: Literal["token"]
    secretName: Name


class AutoscalerOptions(Strict):
    version: Literal["v1", "v2"]
    idleTimeoutSeconds: Annotated[int, Field(ge=0)]
    resources: Resources
    securityContext: ContainerSecurity


class HeadGroup(Strict):
    serviceType: Literal["ClusterIP"]  # the dashboard is nobody's outside
    rayStartParams: dict[str, str]
    template: Template


class WorkerGroup(Strict):
    groupName: Name
    replicas: Annotated[int, Field(ge=0)] = 0
    minReplicas: Annotated[int, Field(ge=0)]
    maxReplicas: Annotated[int, Field(ge=0)]
    rayStartParams: dict[str, str]
    template: Template

    @model_validator(mode="after")
    def _between(self) -> Self:
        assert self.minReplicas <= max(self.replicas, self.minReplicas) <= self.maxReplicas, self.groupName
        return self


class RayCluster(Strict):
    rayVersion: str
    authOptions: AuthOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: AutoscalerOptions | None = None


class RayJobSpec(Strict):
    entrypoint: str
    runtimeEnvYAML: str
    backoffLimit: Annotated[int, Field(ge=0)]
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: Annotated[int, Field(ge=0)]
    submitterPodTemplate: Template
    rayClusterSpec: RayCluster


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


class UpgradeStrategy(Strict):
    type: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]


class RayServiceSpec(Strict):
    serveConfigV2: str
    upgradeStrategy: UpgradeStrategy
    rayClusterConfig: RayCluster


class RayService(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Metadata
    spec: RayServiceSpec


class ClaimRequests(Strict):
    storage: Quantity


class ClaimResources(Strict):
    requests: ClaimRequests


class ClaimSpec(Strict):
    accessModes: list[Literal["ReadWriteMany"]] = Field(min_length=1)
    storageClassName: str
    resources: ClaimResources


class PersistentVolumeClaim(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec
