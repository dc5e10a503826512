/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A real executable per daemon name, with Python inside, so that /proc/PID/exe, comm and cmdline are those of the daemon it
 * stands in for. Built by build.py, which defines PYTHON_HOME and PYTHON_PATH (a colon-separated list).
 *
 * The module _launcher gives Python what it cannot do itself: signal handlers in C (so that a second TERM kills even a
 * process whose main thread is stuck) and inotify.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int signal_pipe[2] = {-1, -1};

static void to_pipe(int signum)
{
    int saved = errno;
    char byte = (char)signum;
    if (write(signal_pipe[1], &byte, 1) < 0) { /* full: a signal is already waiting */ }
    errno = saved;
}

static PyObject *catch_signal(PyObject *self, PyObject *args)
{
    int signum, once;
    struct sigaction action;
    if (!PyArg_ParseTuple(args, "ip", &signum, &once))
        return NULL;
    if (signal_pipe[0] < 0 && pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    memset(&action, 0, sizeof action);
    action.sa_handler = to_pipe;
    action.sa_flags = SA_RESTART | (once ? SA_RESETHAND : 0);
    sigemptyset(&action.sa_mask);
    if (sigaction(signum, &action, NULL) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(signal_pipe[0]);
}

static PyObject *dispose(int signum, void (*how)(int))
{
    if (signal(signum, how) == SIG_ERR)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *ignore_signal(PyObject *self, PyObject *arg)
{
    return dispose((int)PyLong_AsLong(arg), SIG_IGN);
}

static PyObject *default_signal(PyObject *self, PyObject *arg)
{
    return dispose((int)PyLong_AsLong(arg), SIG_DFL);
}

static PyObject *watch_directory(PyObject *self, PyObject *args)
{
    const char *path;
    int fd;
    if (!PyArg_ParseTuple(args, "s", &path))
        return NULL;
    fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd >= 0 && inotify_add_watch(fd, path, IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE) < 0) {
        close(fd);
        fd = -1;
    }
    return PyLong_FromLong(fd);
}

/* Run in circles until the file is another one. Nothing in here waits: not for Python's lock, which is given up, nor for
 * anything else, so this thread gives up the CPU only when it is taken away. At nice 19, for the sake of the machine. */
static PyObject *busy(PyObject *self, PyObject *args)
{
    const char *path;
    struct stat first, now;
    volatile unsigned long count;
    if (!PyArg_ParseTuple(args, "s", &path))
        return NULL;
    setpriority(PRIO_PROCESS, 0, 19);    /* of this thread alone, on Linux; there is no way back */
    Py_BEGIN_ALLOW_THREADS
    if (stat(path, &first) == 0)
        do {
            for (count = 0; count < 20000000; count++)
                ;
        } while (stat(path, &now) == 0 && now.st_ino == first.st_ino && now.st_size == first.st_size
                 && now.st_mtim.tv_sec == first.st_mtim.tv_sec && now.st_mtim.tv_nsec == first.st_mtim.tv_nsec);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"catch", catch_signal, METH_VARARGS, "catch(signum, once) -> descriptor: caught signals are bytes to read from it."},
    {"ignore", ignore_signal, METH_O, "Ignore a signal."},
    {"default", default_signal, METH_O, "Let a signal do what it does by default."},
    {"busy", busy, METH_VARARGS, "busy(path): run in circles until that file changes or is gone."},
    {"watch", watch_directory, METH_VARARGS, "watch(path) -> inotify descriptor, readable when a file there changes; or -1."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_launcher", NULL, -1, methods};

static PyObject *init_module(void)
{
    return PyModule_Create(&module);
}

static void must(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

int main(int argc, char **argv)
{
    static char code[PATH_MAX + 32], path[] = PYTHON_PATH;
    PyPreConfig before;
    PyConfig config;
    char *slash, *part;
    ssize_t length = readlink("/proc/self/exe", code, PATH_MAX);

    if (length <= 0) {
        perror("/proc/self/exe");
        return 127;
    }
    code[length] = 0;
    slash = strrchr(code, '/');          /* PREFIX/sbin/NAME -> PREFIX/lib/kopano-standin */
    *slash = 0;
    slash = strrchr(code, '/');
    strcpy(slash, "/lib/kopano-standin");

    signal(SIGPIPE, SIG_IGN);
    PyImport_AppendInittab("_launcher", init_module);
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    must(Py_PreInitialize(&before));
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.install_signal_handlers = 0;
    config.parse_argv = 0;
    config.pathconfig_warnings = 0;
    must(PyConfig_SetBytesArgv(&config, argc, argv));
    must(PyConfig_SetBytesString(&config, &config.home, PYTHON_HOME));
    config.module_search_paths_set = 1;
    wchar_t *wide = Py_DecodeLocale(code, NULL);
    must(PyWideStringList_Append(&config.module_search_paths, wide));
    for (part = strtok(path, ":"); part; part = strtok(NULL, ":"))
        must(PyWideStringList_Append(&config.module_search_paths, Py_DecodeLocale(part, NULL)));
    must(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    return PyRun_SimpleString("import kopano_standin.main; kopano_standin.main.run()") ? 70 : 0;
}
