from __future__ import annotations

import dataclasses
import math
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

from tests.unit.manifests import example, of_images
from tfos_job import storage
from tfos_job.commands import container_memory
from tfos_job.commands.command import Work
from tfos_job.commands.container_memory import Network
from tfos_job.commands.registry import COMMANDS, SUBMISSIONS
from tfos_job.config import ConvertConfig, DoctorConfig, EvaluateConfig, InferConfig, TrainConfig, VerifyConfig
from tfos_job.driver import session
from tfos_job.errors import SettingsError
from tfos_job.layout import DatasetLayout, ExportLayout
from tfos_job.networks import registry
from tfos_job.protocol import spark_settings
from tfos_job.protocol.topology import topology_of
from tfos_job.run import exports
from tfos_job.submit import spark_arguments, spark_folder, spark_submit
from tfos_job.submit.main import main
from tfos_job.submit.spark_submit import Kubernetes, Request, Shipped, spark_submit_line

ROOT = Path(__file__).resolve().parents[2]
HDFS = "hdfs://nn/user/me/.tfos_job"
SHIPPED = Shipped(
    archive=f"{HDFS}/environment-1.tar.gz#environment",
    python="./environment/bin/python",
    spark_archive=f"{HDFS}/spark-1.zip",
    package=f"{HDFS}/tfos_job-1.zip",
)
DIRS = {"dataset_dir": "hdfs://nn/data", "train_dir": "hdfs://nn/run"}


def request(config: object, *spark_args: str, command: str = "train", **changes: object) -> Request:
    values: dict = {
        "command": command,
        "app_args": ["--dataset_dir", "hdfs://nn/data"],
        "config": config,
        "master": "yarn",
        "queue": "gpu",
        "spark_args": spark_args,
        "home": str(ROOT),
        "hdfs_dir": HDFS,
        "shipped": SHIPPED,
    }
    return Request(**values | changes)


def profiles(command: str) -> list[dict[str, str]]:
    folder = ROOT / "spark" / "conf"
    return [
        spark_submit.parse_profile((folder / f"{name}.conf").read_text(), name)
        for name in SUBMISSIONS[command].profiles
    ]


def settings_of(line: list[str]) -> dict[str, str]:
    """All settings of a line, by Spark's names."""
    names = spark_arguments.NAMED
    end = next(i for i, word in enumerate(line) if word.endswith("_job.py"))
    pairs = zip(line[1:end:2], line[2:end:2], strict=True)
    return dict(value.split("=", 1) if flag == "--conf" else (names.get(flag, flag), value) for flag, value in pairs)


def submit(config: object, *spark_args: str, command: str = "train", **changes: object) -> dict[str, str]:
    return settings_of(spark_submit_line(request(config, *spark_args, command=command, **changes), profiles(command)))


def memory_of(settings: dict[str, str]) -> int:
    return int(settings["spark.executor.memoryOverhead"].removesuffix("m"))


def test_the_whole_line_of_a_training() -> None:
    line = spark_submit_line(request(TrainConfig(**DIRS, num_executors=3, num_gpus=1)), profiles("train"))
    assert line[:5] == ["spark-submit", "--master", "yarn", "--deploy-mode", "cluster"]
    assert line[-3:] == [f"{ROOT}/spark/train_job.py", "--dataset_dir", "hdfs://nn/data"]
    settings = settings_of(line)
    assert settings["spark.app.name"] == "tfos_job train hdfs://nn/run"
    assert settings["spark.yarn.queue"] == "gpu"
    assert settings["spark.archives"] == SHIPPED.archive
    assert settings["spark.submit.pyFiles"] == SHIPPED.package
    assert settings["spark.yarn.archive"] == SHIPPED.spark_archive
    for variable in ("spark.yarn.appMasterEnv.PYSPARK_PYTHON", "spark.executorEnv.PYSPARK_PYTHON"):
        assert settings[variable] == "./environment/bin/python"
    for setting, value in {
        "spark.authenticate": "true",
        "spark.network.crypto.enabled": "true",
        "spark.dynamicAllocation.enabled": "false",
        "spark.speculation": "false",
        "spark.python.worker.reuse": "false",
        "spark.scheduler.minRegisteredResourcesRatio": "0.0",
        "spark.excludeOnFailure.enabled": "false",
        "spark.executor.heartbeatInterval": "5s",
        "spark.network.timeout": "60s",
        "spark.yarn.maxAppAttempts": "2",
        "spark.yarn.submit.waitAppCompletion": "true",
    }.items():
        assert settings[setting] == value, setting


def test_a_submitted_training_has_the_settings_of_one_whose_driver_is_here() -> None:
    config = TrainConfig(**DIRS, num_executors=3)
    settings = submit(config)
    here = session.training_settings(topology_of(config, "yarn"), "yarn", config.max_restarts)
    assert {key: settings.get(key) for key in here} == here


@pytest.mark.parametrize("num_executors", [2, 3, 17])
@pytest.mark.parametrize("max_restarts", [0, 1, 3, 10])
def test_no_number_of_restarts_ends_the_application_before_the_policy_does(
    num_executors: int, max_restarts: int
) -> None:
    settings = submit(TrainConfig(**DIRS, num_executors=num_executors, max_restarts=max_restarts))
    # YARN's ApplicationMaster ends the application when so many containers have ended by themselves.
    allowed = int(settings["spark.executor.maxNumFailures"]) - 1
    lost_at_worst = int(settings["spark.executor.instances"]) * (max_restarts + 1)
    assert allowed >= lost_at_worst
    assert settings["spark.executor.failuresValidityInterval"] == "900s"


def test_a_users_own_limit_that_is_below_the_restarts_is_told() -> None:
    config = TrainConfig(**DIRS, num_executors=3)

    def told(*spark_args: str, command: str = "train", of: object = config) -> list[str]:
        return spark_submit.doubts(request(of, *spark_args, command=command))

    limit = ("--conf", "spark.executor.maxNumFailures=9")
    assert submit(config, *limit)["spark.executor.maxNumFailures"] == "9"
    assert told(*limit) == [
        "Spark ends the application when 9 executors have ended, and --max_restarts 3 may need more: "
        "spark.executor.maxNumFailures=24 allows them"
    ]
    assert told() == told("--conf", "spark.executor.maxNumFailures=10") == told("--num-executors", "nonsense") == []
    assert told(*limit, of=dataclasses.replace(config, max_restarts=2)) == []
    assert told(*limit, command="convert") == []


def test_spark_itself_allows_too_few_for_many_restarts() -> None:
    assert spark_settings.doubts({}, 3, 1) == []
    assert spark_settings.doubts({}, 3, 2) != []
    assert "spark.yarn.max.executor.failures=24" in str(
        spark_settings.doubts({"spark.yarn.max.executor.failures": "4"}, 3, 3)
    )


def test_a_gpu_for_each_worker_and_none_for_the_parameter_server() -> None:
    settings = submit(TrainConfig(**DIRS, num_executors=3, num_gpus=1))
    assert settings["spark.executor.instances"] == "2"  # the parameter server is beside the driver
    assert settings["spark.executor.resource.gpu.amount"] == settings["spark.task.resource.gpu.amount"] == "1"
    assert settings["spark.executor.resource.gpu.discoveryScript"] == "./gpu_discovery.sh"
    assert f"{ROOT}/spark/conf/gpu_discovery.sh" in settings["spark.files"].split(",")
    on_cpu = submit(TrainConfig(**DIRS, num_executors=3))
    assert on_cpu["spark.executor.instances"] == "3"
    assert not any("resource.gpu" in key for key in on_cpu)


def test_one_task_fills_an_executor_also_of_the_users_size() -> None:
    assert submit(TrainConfig(**DIRS))["spark.task.cpus"] == submit(TrainConfig(**DIRS))["spark.executor.cores"]
    for flags in (["--executor-cores", "8"], ["--conf", "spark.executor.cores=8"], ["--executor-cores=8"]):
        settings = submit(TrainConfig(**DIRS), *flags)
        assert settings["spark.task.cpus"] == settings["spark.executor.cores"] == "8"


def test_the_users_flags_are_stronger_and_lists_grow() -> None:
    line = spark_submit_line(
        request(
            TrainConfig(**DIRS),
            *("--queue", "night", "--executor-memory", "9g", "--conf", "spark.authenticate=false"),
            *("--files", "mine.txt", "--principal", "me@REALM", "--verbose"),
        ),
        profiles("train"),
    )
    text = " ".join(line)
    assert line.count("--queue") == 1
    assert "--queue night" in text
    assert "--executor-memory 9g" in text
    assert "spark.authenticate=false" in text
    assert "spark.authenticate=true" not in text
    assert f"--files {ROOT}/spark/conf/log4j2.properties,mine.txt" in text
    assert "--principal me@REALM --verbose" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--master", "local"], "cannot be given after"),
        (["--deploy-mode", "client"], "tfos-job COMMAND --master yarn"),
        (["--conf", "spark.x"], "not KEY=VALUE"),
        (["--conf"], "needs a value"),
        (["stray"], "no flag of spark-submit"),
    ],
)
def test_flags_that_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        submit(TrainConfig(**DIRS), *flags)


def test_conversion_and_proof_take_what_room_there_is_and_evaluation_no_executor() -> None:
    convert = ConvertConfig(gnt_dir="hdfs://nn/gnt", dataset_dir="hdfs://nn/data")
    for command, config in (("convert", convert), ("verify", VerifyConfig(dataset_dir="hdfs://nn/data"))):
        batch = submit(config, command=command)
        assert batch["spark.dynamicAllocation.enabled"] == "true"
        assert batch["spark.yarn.maxAppAttempts"] == "1"
        assert "spark.executor.instances" not in batch
    images = ConvertConfig(image_dir="hdfs://photos/in", dataset_dir="hdfs://nn/data")
    of_images = submit(images, command="convert", work=Work(of_pictures=True))
    assert of_images["spark.kerberos.access.hadoopFileSystems"] == "hdfs://nn,hdfs://photos"
    assert memory_of(of_images) > memory_of(submit(convert, command="convert")) + container_memory.TENSORFLOW
    alone = submit(EvaluateConfig(**DIRS), command="evaluate")
    assert alone["spark.dynamicAllocation.initialExecutors"] == "0"
    assert "spark.executor.memory" not in alone


def _export(root: Path) -> str:
    """Publishes what `export` says of a small network."""
    for name in ("files", "exports"):
        (root / name).mkdir()
    (root / "files" / "saved_model.pb").write_bytes(b"graph")
    model = {"model_name": "hanzi_net", "image_size": 96, "num_classes": 7, "keep_prob": 1.0}
    document = {"digest": "d", "step": 1, "model": model}
    exports.publish(ExportLayout(str(root / "exports")), str(root / "files"), document)
    return str(root / "exports")


def test_infer_has_executors_of_several_cores(tmp_path: Path) -> None:
    config = InferConfig(train_dir="hdfs://nn/run", input="hdfs://far/in/*", output_dir="hdfs://nn/out", num_gpus=1)
    settings = submit(config, command="infer")
    assert settings["spark.app.name"] == "tfos_job infer hdfs://nn/run"
    assert settings["spark.executor.cores"] == settings["spark.task.cpus"] == "4"
    assert settings["spark.task.resource.gpu.amount"] == settings["spark.executor.resource.gpu.amount"] == "1"
    assert settings["spark.dynamicAllocation.maxExecutors"] == "64"
    assert settings["spark.kerberos.access.hadoopFileSystems"] == "hdfs://far,hdfs://nn"
    on_cpu = submit(dataclasses.replace(config, num_gpus=0), command="infer")
    assert "spark.task.resource.gpu.amount" not in on_cpu
    large = submit(dataclasses.replace(config, num_gpus=0, batch_size=2048), command="infer")
    assert memory_of(large) > memory_of(on_cpu)
    of_export = InferConfig(export_dir=_export(tmp_path), input="hdfs://far/in", output_dir="hdfs://nn/out")
    work = SUBMISSIONS["infer"].size_of_work(of_export)
    assert work.network == Network(model_name="hanzi_net", image_size=96, num_channels=1, num_classes=7)
    assert memory_of(submit(of_export, command="infer", work=work)) < memory_of(
        submit(of_export, command="infer", work=Work(network=Network(model_name="inception_v3"), of_pictures=True))
    )


def test_evaluate_has_executors_if_they_are_asked_for() -> None:
    alone = submit(EvaluateConfig(**DIRS), command="evaluate")
    shared = submit(EvaluateConfig(**DIRS, num_executors=3), command="evaluate")
    assert "spark.executor.instances" not in alone
    assert (shared["spark.executor.instances"], shared["spark.dynamicAllocation.enabled"]) == ("3", "false")
    assert memory_of(shared) >= 1024
    assert shared["spark.driver.memoryOverhead"] == alone["spark.driver.memoryOverhead"]


def test_report_and_predict_have_a_driver_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "a.png").write_bytes(b"")
    run, hdfs_dir = f"file://{tmp_path}", ("--hdfs_dir", "hdfs://nn/me", "--dry-run")
    for name, words in {
        "report": [run, "--html", "hdfs://pages/2026-11-29.html"],
        "predict": ["--train_dir", run, f"{run}/a.png"],
    }.items():
        assert main([name, *words, *hdfs_dir]) == 0
        line = shlex.split(capsys.readouterr().out)
        assert line[-len(words) :] == words
        settings = settings_of(line[: -len(words)])
        assert settings["spark.app.name"] == f"tfos_job {name} {run}"
        assert settings["spark.dynamicAllocation.initialExecutors"] == "0"
        assert "spark.executor.memory" not in settings
    assert settings_of(line[: -len(words)])["spark.kerberos.access.hadoopFileSystems"] == "hdfs://nn"
    for code, fact, refused in (
        (78, "--follow: what is followed is shown on this host", ["report", run, "--follow"]),
        (78, "--html: a submitted report is a page", ["report", run]),
        (78, "--html: page.html is a path on the disk", ["report", run, "--html", "page.html"]),
        (78, "RUN: /run is a path on the disk", ["report", "/run", "--html", "hdfs://nn/page.html"]),
        (66, "no such run", ["report", f"{run}/no", "--html", "hdfs://nn/page.html"]),
        (66, "a.gif: cannot look at it: not there", ["predict", "--train_dir", run, f"{run}/a.gif"]),
        (66, "/no: no such folder. Check --train_dir", ["predict", "--train_dir", f"{run}/no", f"{run}/a.png"]),
        (78, "IMAGE: a.png is a path on the disk", ["predict", "--train_dir", run, "a.png"]),
        (78, "IMAGE -: standard input is that of this host", ["predict", "--train_dir", run, "-"]),
    ):
        assert main([*refused, *hdfs_dir]) == code, refused
        assert fact in capsys.readouterr().err


def test_the_doctor_gets_executors_like_those_of_a_training() -> None:
    settings = submit(DoctorConfig(num_executors=3, num_gpus=1), command="doctor")
    assert settings["spark.executor.instances"] == "3"
    assert settings["spark.executor.resource.gpu.amount"] == "1"
    assert settings["spark.dynamicAllocation.enabled"] == "false"
    assert settings["spark.yarn.maxAppAttempts"] == "1"
    assert settings["spark.task.cpus"] == settings["spark.executor.cores"]


def test_kubernetes() -> None:
    options = Kubernetes(
        image="registry/tfos:1", namespace="ml", service_account="spark", executor_pod_template="e.yml"
    )
    line = spark_submit_line(
        request(
            TrainConfig(**DIRS, num_gpus=1), master="k8s://https://api:6443", kubernetes=options, shipped=Shipped()
        ),
        profiles("train"),
    )
    settings = settings_of(line)
    assert line[2] == "k8s://https://api:6443"
    assert settings["spark.kubernetes.container.image"] == "registry/tfos:1"
    assert settings["spark.kubernetes.namespace"] == "ml"
    assert settings["spark.kubernetes.authenticate.driver.serviceAccountName"] == "spark"
    assert settings["spark.kubernetes.executor.podTemplateFile"] == "e.yml"
    assert "spark.kubernetes.driver.podTemplateFile" not in settings
    assert settings["spark.executor.resource.gpu.vendor"] == "nvidia.com"
    assert "local:///opt/tfos_job/spark/train_job.py" in line
    assert not any(key.startswith("spark.yarn.") for key in settings)
    assert settings["spark.eventLog.dir"] == f"{HDFS}/spark-events"
    assert settings["spark.kubernetes.driverEnv.TFOS_JOB_OUTCOME_DIR"] == f"{HDFS}/outcomes"
    with pytest.raises(SettingsError, match="--image"):
        spark_submit_line(request(TrainConfig(**DIRS), master="k8s://https://api"), profiles("train"))


def file_systems(config: object, *spark_args: str, command: str = "train", **changes: object) -> list[str]:
    settings = submit(config, *spark_args, command=command, **{"hdfs_dir": "hdfs:///me", **changes})
    return list(filter(None, settings.get("spark.kerberos.access.hadoopFileSystems", "").split(",")))


def test_tokens_of_every_file_system_that_the_job_uses() -> None:
    near = {"dataset_dir": "hdfs:///data", "train_dir": "hdfs:///run"}
    assert file_systems(TrainConfig(**near)) == []
    assert file_systems(TrainConfig(**near | {"dataset_dir": "hdfs://other:8020/data"})) == ["hdfs://other:8020"]
    assert file_systems(TrainConfig(**near, checkpoint_path="hdfs://third/run")) == ["hdfs://third"]
    assert file_systems(TrainConfig(**near, restore="viewfs://c/run/checkpoints/step-1")) == ["viewfs://c"]
    assert file_systems(EvaluateConfig(**near, checkpoint="hdfs://third/c"), command="evaluate") == ["hdfs://third"]
    convert = ConvertConfig(gnt_dir="hdfs:///gnt", dataset_dir="hdfs:///data", charset="hdfs://fourth/chars.txt")
    assert file_systems(convert, command="convert") == ["hdfs://fourth"]
    assert file_systems(TrainConfig(**near), hdfs_dir="hdfs://far/me") == ["hdfs://far"]
    verify = VerifyConfig(dataset_dir="hdfs:///data", gnt_dir="auto")
    assert file_systems(verify, command="verify", other_dirs=["hdfs://gnt/in"]) == ["hdfs://gnt"]
    own = ("--conf", "spark.kerberos.access.hadoopFileSystems=hdfs://mine")
    assert file_systems(TrainConfig(**near, restore="hdfs://third/c"), *own) == ["hdfs://third", "hdfs://mine"]


def test_a_training_on_colour_photographs_gets_their_memory() -> None:
    train = TrainConfig(**DIRS, input_mode="files")
    assert memory_of(submit(train, work=Work(record_bytes=50_000))) > memory_of(submit(train))
    preloaded = TrainConfig(**DIRS, input_mode="preloaded")
    grey = memory_of(submit(preloaded, work=Work(worker_records=100_000)))
    colour = Work(worker_records=100_000, network=Network(num_channels=3))
    assert memory_of(submit(preloaded, work=colour)) > grey


def test_each_submitted_command_has_its_profiles_and_its_program() -> None:
    programs = {path.stem.removesuffix("_job"): path.read_text() for path in (ROOT / "spark").glob("*_job.py")}
    assert set(SUBMISSIONS) <= set(programs) <= set(COMMANDS)
    for name, text in programs.items():
        assert f'main(["{name}", *sys.argv[1:]])' in text
        assert "def " not in text  # which an executor would look for in a module that it does not have
    for name in SUBMISSIONS:
        assert profiles(name)


def test_the_folder_of_programs_is_the_wheels_or_the_checkouts_or_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert spark_folder.home() == ROOT
    monkeypatch.setattr(spark_folder, "_PACKAGE", tmp_path)
    monkeypatch.setenv("TFOS_JOB_HOME", "")
    with pytest.raises(SettingsError, match=r"spark/conf/common\.conf in it\. Install this package again"):
        spark_folder.home()
    (tmp_path / "spark" / "conf").mkdir(parents=True)
    (tmp_path / "spark" / "conf" / "common.conf").write_text("spark.a b\n")
    assert spark_folder.home() == tmp_path
    assert spark_folder.profile("common") == {"spark.a": "b"}
    monkeypatch.setenv("TFOS_JOB_HOME", str(ROOT))
    assert spark_folder.home() == ROOT
    monkeypatch.setenv("TFOS_JOB_HOME", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"TFOS_JOB_HOME=.*/none: no spark/conf/common\.conf in it"):
        spark_folder.home()


def test_kubernetes_without_a_folder_for_events_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)
    words = ["convert", "--gnt_dir", tmp_path.as_uri(), "--dataset_dir", "file:///d", "--master", "k8s://https://api"]
    assert main([*words, "--image", "registry/tfos:1", "--dry-run"]) == 0
    line = capsys.readouterr().out
    assert "spark.eventLog.enabled=false" in line
    assert "spark.eventLog.dir" not in line
    assert "OUTCOME_DIR" not in line
    # Its own templates, unless others are given.
    assert f"spark.kubernetes.driver.podTemplateFile={ROOT}/spark/kubernetes/driver.yaml" in line
    assert f"spark.kubernetes.executor.podTemplateFile={ROOT}/spark/kubernetes/executor.yaml" in line
    assert main([*words, "--image", "i", "--driver_pod_template", "/t.yaml", "--dry-run"]) == 0
    assert "spark.kubernetes.driver.podTemplateFile=/t.yaml" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "code", "fact"),
    [
        (["--gnt_dir", "file:///", "--charset", "c.txt"], 78, "--charset: c.txt is a path on the disk of whichever"),
        (["--gnt_dir", "file:///", "--hdfs_dir", "/x"], 78, "--hdfs_dir: /x is a path on the disk of whichever host"),
        (["--image_dir", "/disk/photos"], 78, "--image_dir: /disk/photos is a path on the disk of whichever host"),
        (["--image_dir", "hdfs://nn/in", "--labels_csv", "l.csv"], 78, "--labels_csv: l.csv is a path on the disk"),
        # Hadoop's short form of a URL is one.
        (["--image_dir", "hdfs:/in", "--labels_csv", "l.csv"], 78, "--labels_csv: l.csv is a path on the disk"),
        (["--image_dir", "file:///no/photos"], 66, "/no/photos: no such folder. Check --image_dir"),
        (["--image_dir", "file:///", "--labels_csv", "file:///no/l.csv"], 66, "no such file. Check --labels_csv"),
    ],
)
def test_a_conversion_is_refused_before_anything_is_uploaded(
    flags: list[str], code: int, fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "--hdfs_dir", HDFS, *flags, "--dataset_dir", "file:///d", "--dry-run"]) == code
    assert fact in capsys.readouterr().err


@pytest.mark.parametrize("of_pictures", [False, True])
def test_a_proof_of_pictures_gets_their_memory(
    of_pictures: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no split").mkdir()
    split = DatasetLayout(str(tmp_path)).split("train")
    storage.make_dirs(split.root)
    storage.write_json(split.manifest, (of_images() if of_pictures else example()).to_json())
    flags = ["--dataset_dir", f"file://{tmp_path}", "--hdfs_dir", HDFS, "--queue", "q", "--dry-run"]
    assert main(["verify", *flags]) == 0
    expected = container_memory.batch_executor(of_pictures=of_pictures).overhead
    assert f"spark.executor.memoryOverhead={expected}m" in capsys.readouterr().out


def test_a_profile_with_a_line_that_is_no_setting() -> None:
    with pytest.raises(SettingsError, match="mine, line 2: not a Spark setting: 'nonsense'"):
        spark_submit.parse_profile("# fine\nnonsense\n", "mine")


@pytest.mark.parametrize(
    ("name", "image_size", "num_classes"),
    [("chinese_rec", 64, 3755), ("chinese_rec", 16, 10), ("hanzi_net", 64, 3755), ("inception_v3", 299, 10)],
)
def test_the_figures_are_the_networks(name: str, image_size: int, num_classes: int) -> None:
    built = registry.build(name, num_classes=num_classes, image_size=image_size, keep_prob=1.0, seed=0)
    network = container_memory.Network(model_name=name, image_size=image_size, num_classes=num_classes)
    assert network.num_parameters == built.count_params()
    values = sum(math.prod(layer.output.shape[1:]) for layer in leaves(built)) - num_classes
    if image_size > 16:  # in smaller images the layers behind the last map count
        assert network.activation_bytes == pytest.approx(values * 12, rel=0.05)


def leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def test_memory_grows_with_what_needs_it() -> None:
    base = {
        "network": container_memory.Network(),
        "batch_size": 128,
        "shuffle_buffer": 10_000,
        "preloaded_bytes": 0,
        "on_gpu": False,
    }

    def overhead(**changes: object) -> int:
        return container_memory.worker(**base | changes).overhead  # type: ignore[arg-type]

    assert overhead(batch_size=512) > overhead() > overhead(batch_size=16)
    assert overhead(shuffle_buffer=1_000_000) > overhead()
    assert overhead(record_bytes=100_000) > overhead(record_bytes=3_500) == overhead()
    assert overhead(shuffle_buffer=0, preloaded_bytes=1 << 30) >= overhead(shuffle_buffer=0) + 1024
    assert overhead(network=container_memory.Network(num_classes=100_000)) > overhead()
    assert overhead(network=container_memory.Network(model_name="inception_v3", image_size=299)) > overhead()
    assert overhead(whitened_values=4096) >= overhead() + 256
    assert overhead(push_every=2) == overhead(push_every=9) > overhead()
    driver = {"parameters": 21_000_000, "num_ps_tasks": 1, "num_workers": 4}
    beside = container_memory.training_driver(**driver, ps_on_driver_host=True)
    assert beside.overhead > container_memory.training_driver(**driver, ps_on_driver_host=False).overhead


def test_the_discovery_script_prints_what_spark_reads(tmp_path: Path) -> None:
    nvidia_smi = tmp_path / "nvidia-smi"
    nvidia_smi.write_text("#!/bin/sh\nprintf '0\\n3\\n'\n")
    nvidia_smi.chmod(0o755)
    for allowed, addresses in ((None, '"0","3"'), ("3", '"3"'), ("1, GPU-a,-1,2", '"1","GPU-a"'), ("", "")):
        done = subprocess.run(
            [ROOT / "spark" / "conf" / "gpu_discovery.sh"],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"} | ({} if allowed is None else {"CUDA_VISIBLE_DEVICES": allowed}),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert done.stdout == f'{{"name": "gpu", "addresses": [{addresses}]}}\n'
