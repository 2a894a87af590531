"""Jobs of several processes on this machine, forked from a server that has imported everything."""

import multiprocessing
import os
import signal
import socket
import sys

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["jobs", "toys", "richsem.operations.store", "richsem.__main__"])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def job(folder, work, *given, world=2):
    """Exit codes, and what each process said, of processes that do `work(rank, *given)`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    processes = [
        FORKING.Process(target=_member, args=(folder, rank, world, port, work, given))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()  # only if it hangs
        process.join()
    said = [(folder / f"{rank}.txt").read_text() for rank in range(world)]
    return [process.exitcode for process in processes], said


def _member(folder, rank, world, port, work, given):
    os.setsid()  # what a process sends to its group reaches none of the others
    with (folder / f"{rank}.txt").open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    values = {"WORLD_SIZE": world, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    values |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in values.items()})
    import torch

    from richsem import paths

    torch.set_num_threads(1)
    paths.CACHE = folder.parent / "cache"
    sys.exit(work(rank, *given))


def command(rank, words, accidents=()):
    """A command, with what befalls some processes at some steps: (step, rank, signal or call)."""
    from richsem.__main__ import main
    from richsem.training import loop

    advance = loop.Training.advance

    def befallen(run, *given):
        for step, whom, what in accidents:
            if (run.step, rank) == (step, whom):
                what() if callable(what) else os.kill(os.getpid(), what)
        advance(run, *given)

    loop.Training.advance = befallen
    return main([str(word) for word in words])


def tell_the_group():
    """What a queue does before time is up: it reaches loaders, too."""
    os.killpg(0, signal.SIGUSR1)


def share(rank, folder, root):
    """What a process finds in toys and small runs; alone it works off its steps in two parts."""
    from dataclasses import replace

    import torch
    from toys import ToyCriterion, ToyDetector, ToySet, small_run, two_stage_run

    from richsem.structures import Supervision
    from richsem.training.loading import Source
    from richsem.training.loop import TrainConfig, train
    from richsem.training.optim import OptimConfig
    from richsem.training.predict import predict
    from richsem.training.runs import run

    parts = 2 // int(os.environ["WORLD_SIZE"])
    optim, sets = (
        OptimConfig(lr=0.02, backbone_lr=0.02),
        (ToySet(), ToySet(supervision=Supervision.UNLABELLED)),
    )
    found = {}
    for noise, accumulation in ((0.0, 1), (0.1, parts)):
        detector = ToyDetector(noise)
        with torch.no_grad():  # only the first process starts right
            detector.boxes.weight += rank
        config = TrainConfig(steps=4, batch_size=4, log_every=4, accumulation=accumulation)
        sources = [Source(dataset=one) for one in sets]
        rows = train(detector, ToyCriterion(), *sources, config, optim, folder / f"toy {noise}")
        found[f"toy {noise}"] = [detector.state_dict(), rows[-1]["losses"]]
    boxes = predict(detector, ToySet(5), [1, 2, 3], batch_size=2)
    found["found"] = [torch.from_numpy(column) for column in (boxes.image_id, boxes.score)]
    for make in (small_run, two_stage_run):
        config = make(root, steps=2)
        # Statistics of norms that are not frozen are each process's own.
        backbone = replace(config.detector.backbone, frozen_norm=True)
        config = replace(config, detector=replace(config.detector, backbone=backbone))
        steps = replace(config.train, batch_size=4, log_every=1, accumulation=parts)
        detector, rows = run(replace(config, train=steps), folder / make.__name__)
        losses = [(row["losses"], row["gradient_norm"]) for row in rows]
        found[make.__name__] = [detector.state_dict(), losses]
    torch.save(found, folder / f"{rank}.pt")


def unheard(rank, folder):
    """One process no longer answers."""
    import time
    from datetime import timedelta

    from richsem.training import parallel

    parallel.PATIENCE = timedelta(seconds=2)
    accelerator = parallel.make_accelerator("no")
    parallel.summed([1.0], accelerator)
    if rank:
        time.sleep(5)
    try:
        parallel.summed([1.0], accelerator)
    except parallel.LostProcessError as error:
        print(error)
        os._exit(9)


def keep(rank, folder, samples):
    """Features of a set, made together with another process that was asked at the same time."""
    import time

    from torch.nn.functional import avg_pool2d

    from richsem.data import features

    features._SHARD, seen = 2, folder / str(rank)
    other = folder / str(1 - rank)

    def look(batch):
        with seen.open("a") as file:
            file.writelines(f"{target.image_id}\n" for target in batch.targets)
        begun = time.monotonic()
        while not other.exists() and time.monotonic() < begun + 30:
            time.sleep(0.01)
        return batch, (avg_pool2d(batch.images, 8),)

    config = features.FeatureConfig(views=2, batch_size=2)
    stored = features.cached_features(samples, look, "pool", config)
    found = [stored[index, view] for index in range(len(stored)) for view in range(2)]
    features.torch.save([vars(one) | vars(one.target) for one in found], folder / f"{rank}.pt")
