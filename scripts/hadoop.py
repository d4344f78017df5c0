"""A real Hadoop on this machine alone: NameNode, DataNodes, ResourceManager and NodeManagers.

`scripts/hadoop.sh` calls this with the environment it needs (this package's Python, and JAVA_HOME). The daemons are
those of `hadoop-client-minicluster`, one jar beside those that pyspark brings. All addresses are 127.0.0.1; there is no
authentication, so every user of this machine can use it in your name. With `--hosts N` (as root) there are N hosts,
network namespaces with addresses of their own behind a bridge, with a NodeManager and a DataNode each; NameNode and
ResourceManager are on the bridge's own address. Everything lies in one FOLDER:

    hadoop.json       ports, and the process id and start time of each daemon
    conf/             HADOOP_CONF_DIR
    data/  logs/      what the daemons keep; their own logs; the containers' logs in logs/userlogs (logs/userlogsN)

TFOS_JOB_HADOOP_HIDE=PATH:PATH… gives the NodeManagers, and so their containers, a view of this machine's files in which
these files and folders are empty, as on a node that has none of them. It needs root; FOLDER remembers it.

Exit codes: 0, 2 (a wrong word), 69 (something did not come up, is not up, or may not be made), 78 (FOLDER is something
else).
"""

import signal
import sys

from hadoop.commands import main  # the folder beside this file, which comes before it

if __name__ == "__main__":
    # As Ctrl-C: what was started so far is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
