"""Random stacks of layers from a seed: python3 layers.py FOLDER SEED STACKS. For each, FOLDER/n holds the
layers' archives, 1 the lowest, and `wanted`, what is there once GNU tar has unpacked one after another into
one folder, where rm has done each one's whiteouts before."""

import gzip, io, os, random, shutil, stat, subprocess, sys, tarfile

NAMES = ["a", "b", "c", "d", "e", "f"]


def remove(path):
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
    else:
        shutil.rmtree(path)


class Layer:
    """Entries of one archive, in order, for a folder as it is."""

    def __init__(self, rng, root):
        self.rng, self.root, self.entries, self.hidden = rng, root, [], []
        self.touched, self.used = set(), set()

    def names(self):
        """All that is there, by a path without links on the way."""
        found = []
        for folder, dirs, files in os.walk(self.root):
            for name in dirs + files:
                found.append(os.path.relpath(os.path.join(folder, name), self.root))
        return sorted(found)

    def way(self, path):
        """Each name, without links before it, that is passed on the way to the path's last one."""
        passed, here, todo, links = [], [], path.split("/"), 0
        while todo:
            part = todo.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                here = here[:-1]
                continue
            name = "/".join(here + [part])
            passed.append(name)
            full = os.path.join(self.root, name)
            if todo and os.path.islink(full) and links < 40:
                links, todo = links + 1, os.readlink(full).split("/") + todo
            else:
                here.append(part)
        return passed

    def free(self, path):
        """Does nothing of this layer touch it, what is on the way to it, or what is in it?"""
        passed = self.way(path)
        # A link that leads to its own replacement GNU tar makes a folder of; who knows where the path leads
        # (containerd) does not.
        if not passed or passed[-1] in passed[:-1] or self.touched & set(passed) or passed[-1] in self.used or any(
                used.startswith(passed[-1] + "/") for used in self.used):
            return False
        self.touched.add(passed[-1])
        self.used.update(passed)
        return True

    def info(self, path, kind):
        info = tarfile.TarInfo(path)
        info.type = kind
        info.mode = self.rng.choice([0o644, 0o755, 0o4711, 0o600, 0o1777])
        info.uid, info.gid = self.rng.choice([0, 1, 1000, 70000]), self.rng.choice([0, 5, 4000000])
        info.mtime = self.rng.randrange(0, 2**31)
        return info

    def add(self, path, kind, data=b"", target=""):
        info = self.info(path, kind)
        info.size, info.linkname = len(data), target
        self.entries.append((info, data))

    def add_any(self, path, folders):
        kind = self.rng.randrange(10)
        if kind < 4:
            size = self.rng.choice([0, 7, 100, 70000])
            self.add(path, tarfile.REGTYPE, bytes([self.rng.randrange(256)]) * size + path.encode())
        elif kind < 7:
            self.add(path, tarfile.DIRTYPE)
            for name in self.rng.sample(NAMES, self.rng.randrange(3)):
                self.add(path + "/" + name, tarfile.REGTYPE, b"in a new folder")
        elif kind < 9:
            to = self.rng.choice(folders + ["nowhere"])
            self.add(path, tarfile.SYMTYPE, target=os.path.relpath(to, os.path.dirname(path) or "."))
        else:
            self.add(path, self.rng.choice([tarfile.FIFOTYPE, tarfile.CHRTYPE]))
            self.entries[-1][0].devmajor, self.entries[-1][0].devminor = 1, self.rng.randrange(1, 9)

    def whiteout(self, path):
        where, name = os.path.split(path)
        self.add(os.path.join(where, ".wh." + name), self.rng.choice([tarfile.REGTYPE, tarfile.REGTYPE,
                                                                      tarfile.LNKTYPE]),
                 target=".wh..wh.plnk/x")
        self.hidden.append(path)

    def step(self):
        names = self.names()
        folders = [n for n in names if os.path.isdir(os.path.join(self.root, n))
                   and not os.path.islink(os.path.join(self.root, n))]
        ways = [n for n in names if os.path.isdir(os.path.join(self.root, n))]  # also by a link
        files = [n for n in names if stat.S_ISREG(os.lstat(os.path.join(self.root, n)).st_mode)]
        what = self.rng.randrange(10)
        if what < 4 or not names:  # something new, or over what is there
            way = self.rng.choice([""] + ways)
            path = os.path.join(way, self.rng.choice(NAMES))
            if self.free(path):
                self.add_any(path, folders + files)
        elif what < 6:
            path = self.rng.choice(names)
            if self.free(path):
                self.whiteout(path)
                if self.rng.random() < 0.3:
                    self.add_any(path, folders + files)
        elif what < 7 and folders:
            path = self.rng.choice(folders)
            if self.free(path):
                self.add(path, tarfile.DIRTYPE)
                for name in self.rng.sample(NAMES, self.rng.randrange(3)):
                    self.add(path + "/" + name, tarfile.REGTYPE, b"kept over the opaque mark")
                self.add(path + "/.wh..wh..opq", tarfile.REGTYPE)
                self.hidden.append(path + "/.")
        elif what < 9 and files:
            target, path = self.rng.choice(files), os.path.join(self.rng.choice([""] + ways),
                                                                self.rng.choice(NAMES))
            if self.free(target) and self.free(path):
                self.add(path, tarfile.LNKTYPE, target=target)
        else:
            path = self.rng.choice(names)
            if self.free(path):
                self.add_any(path, folders + files)

    def write(self, path):
        whiteouts = [e for e in self.entries if ".wh." in e[0].name]
        others = [e for e in self.entries if ".wh." not in e[0].name]
        for e in whiteouts:  # in any order
            others.insert(self.rng.randrange(len(others) + 1), e)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for info, data in others:
                tar.addfile(info, io.BytesIO(data))
        raw = out.getvalue()
        with open(path, "wb") as f:
            f.write(gzip.compress(raw, 1) if self.rng.random() < 0.7 else raw)

    def apply(self, path):
        for name in self.hidden:
            full = os.path.join(self.root, name)
            if name.endswith("/."):
                for inner in os.listdir(full):
                    remove(os.path.join(full, inner))
            elif os.path.lexists(full):
                remove(full)
        for info, _ in self.entries:  # what is of another kind gives way
            full = os.path.join(self.root, info.name)
            if ".wh." not in info.name and os.path.lexists(full) and not (
                    info.isdir() and os.path.isdir(full) and not os.path.islink(full)):
                remove(full)
        subprocess.run(["tar", "-C", self.root, "-xpf", path, "--numeric-owner", "--exclude=.wh.*",
                        "--warning=no-timestamp"], check=True)


def listing(root):
    first, rows = {}, []
    for folder, dirs, files in os.walk(root):
        for name in sorted(dirs + files):
            full = os.path.join(folder, name)
            path, st = os.path.relpath(full, root), os.lstat(full)
            row = [path, stat.S_IFMT(st.st_mode) >> 12, st.st_mode & 0o7777, st.st_uid, st.st_gid]
            if not stat.S_ISDIR(st.st_mode):
                row += [int(st.st_mtime), st.st_nlink]
                first.setdefault(st.st_ino, []).append(path)
            if stat.S_ISLNK(st.st_mode):
                row.append(os.readlink(full))
            if stat.S_ISREG(st.st_mode):
                data = open(full, "rb").read()
                row += [len(data), data[:1].hex(), data[-20:].hex()]
            rows.append((st.st_ino, row))
    return sorted(" ".join(map(str, row)) + " " + " ".join(sorted(first.get(ino, []))) for ino, row in rows)


def main(folder, seed, stacks):
    for n in range(int(stacks)):
        rng = random.Random("%s/%d" % (seed, n))
        os.makedirs("%s/%d/root" % (folder, n))
        os.chdir("%s/%d" % (folder, n))
        layers = rng.randrange(4, 10)
        for i in range(1, layers + 1):
            layer = Layer(rng, "root")
            for _ in range(30 if i == 1 else rng.randrange(1, 12)):
                layer.step()
            layer.write(str(i))
            layer.apply(str(i))
        with open("wanted", "w") as f:
            f.write("%d\n" % layers + "\n".join(listing("root")) + "\n")
        shutil.rmtree("root")


main(*sys.argv[1:])
