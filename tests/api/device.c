/* Which device a model is opened on, and what is said where the one that is asked for is not there. The environment variable
 * TFINFER_DEVICE says that there is one. */
#include <dlfcn.h>
#include <stdlib.h>

#include "check.h"
#include "tiny_model.h"

static char logged[1024];

static void log_line(void *user, tf_log_level level, const char *text)
{
    (void)user;
    if (level == TF_LOG_INFO) snprintf(logged, sizeof logged, "%s", text);
}

/* "" if the model does not open. */
static const char *device_of(const char *device)
{
    static char name[16];
    float out[TINY_OUT];
    tf_model_options o;
    tf_model_info info;
    tf_session *s;
    tf_model *m;

    tf_model_options_init(&o);
    o.device = device;
    o.threads = 2;
    o.log = log_line;
    *logged = 0;
    if (tf_model_open(tiny_model_path(TINY_BASE), &o, &m) < 0) return "";
    tf_model_info_init(&info);
    CHECK_OK(tf_model_get_info(m, &info));
    snprintf(name, sizeof name, "%s", info.device);
    CHECK_OK(tf_session_open(m, NULL, &s));
    CHECK_OK(tiny_run(s, TINY_BASE, out));
    tf_session_close(s);
    tf_model_close(m);
    return name;
}

/* The same library works on a machine without a GPU, and says what is missing: the driver, or that it was built without the
 * backend. */
static void without_a_driver(void)
{
    static const char *const devices[] = {"cuda", "cuda:7"};
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    tf_model_options o;
    tf_model *m;

    if (driver || getenv("TFINFER_DEVICE")) {
        if (driver) dlclose(driver);
        printf("without_a_driver: skipped, this machine has one\n");
        return;
    }
    tf_model_options_init(&o);
    for (int i = 0; i < 2; i++) {
        o.device = devices[i];
        CHECK_STATUS(tf_model_open(tiny_model_path(TINY_BASE), &o, &m), TF_STATUS_UNSUPPORTED);
        CHECK(strstr(tf_last_error(), devices[i]) != NULL);
        CHECK(strstr(tf_last_error(), "no NVIDIA driver: libcuda.so.1") != NULL ||
              strstr(tf_last_error(), "no CUDA backend") != NULL);
        CHECK(m == NULL);
    }
    CHECK_TEXT(device_of("cpu"), "cpu");
    CHECK_TEXT(logged, "");
}

/* A GPU that is not there is no error, and hides none. */
static void automatic(void)
{
    const char *expected = getenv("TFINFER_DEVICE");
    tf_model *m;
    char error[1024];

    CHECK(tf_model_open("/nonexistent", NULL, &m) < 0);
    snprintf(error, sizeof error, "%s", tf_last_error());
    if (!expected) expected = "cpu";
    CHECK_TEXT(device_of(NULL), expected);
    CHECK_TEXT(device_of("auto"), expected);
    CHECK_TEXT(tf_last_error(), error);
    CHECK((strstr(logged, "no GPU is used: device \"cuda") != NULL) == (strcmp(expected, "cpu") == 0));
    CHECK_TEXT(device_of("cpu"), "cpu");
}

static void no_such_device(void)
{
    tf_model_options o;
    tf_model *m;

    if (!getenv("TFINFER_DEVICE")) {
        printf("no_such_device: skipped, TFINFER_DEVICE names no device\n");
        return;
    }
    tf_model_options_init(&o);
    o.device = "cuda:99";
    CHECK_STATUS(tf_model_open(tiny_model_path(TINY_BASE), &o, &m), TF_STATUS_UNSUPPORTED);
    CHECK_ERROR_SAYS("cuda:99");
    CHECK_ERROR_SAYS("no such device");
    CHECK_TEXT(device_of("cuda"), "cuda");
}

int main(int argc, char **argv)
{
    check_run(argc, argv, "without_a_driver", without_a_driver);
    check_run(argc, argv, "automatic", automatic);
    check_run(argc, argv, "no_such_device", no_such_device);
    return check_done();
}
