#!/usr/bin/env bash
# What a pod of Spark's runs: `driver FLAGS` and `executor` are Spark's words, all else is a command. Its exit code is
# that of the driver or executor, which replaces this shell.
set -euo pipefail
: "${SPARK_HOME:=/opt/spark}" "${PYSPARK_PYTHON:=/opt/tfos_job/venv/bin/python}"
export SPARK_HOME PYSPARK_PYTHON
export PYSPARK_DRIVER_PYTHON=${PYSPARK_DRIVER_PYTHON:-$PYSPARK_PYTHON}
# On YARN it travels with the job (spark/conf/common.conf names it).
[[ -e log4j2.properties ]] || cp "$SPARK_HOME/../tfos_job/spark/conf/log4j2.properties" . || true
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

case ${1:-} in
driver)
    exec "$SPARK_HOME/bin/spark-submit" --deploy-mode client \
        --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \
        --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" \
        "${@:2}"
    ;;
executor)
    options=()
    # Spark numbers the options of the JVM: SPARK_JAVA_OPT_0, SPARK_JAVA_OPT_1, ...
    for ((i = 0; ; i++)); do
        name=SPARK_JAVA_OPT_$i
        [[ -v $name ]] || break
        options+=("${!name}")
    done
    classes=${SPARK_CONF_DIR:-$SPARK_HOME/conf}:$SPARK_HOME/jars/*${HADOOP_CONF_DIR:+:$HADOOP_CONF_DIR}
    classes+=${SPARK_CLASSPATH:+:$SPARK_CLASSPATH}
    exec "$java" "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" -cp "$classes" \
        org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
        --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
        --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
        --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
*)
    exec "$@"
    ;;
esac
