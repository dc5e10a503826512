/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An innocent process: it does nothing, under any name and with any words. A signal that it can catch is written to its
 * standard output, with the pid of the sender (0: from outside the node).
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void note(int number, siginfo_t *sender, void *context)
{
    char line[80];
    int length = snprintf(line, sizeof line, "pid %d: signal %d from pid %d\n", (int)getpid(), number,
                          (int)sender->si_pid);
    (void)context;
    if (write(1, line, length) < 0) { /* nobody will hear of it */ }
}

int main(void)
{
    static const int caught[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGPIPE, SIGABRT, SIGSEGV};
    struct sigaction action;
    unsigned index;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = note;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    for (index = 0; index < sizeof caught / sizeof *caught; index++)
        sigaction(caught[index], &action, NULL);
    for (;;)
        pause();
}
