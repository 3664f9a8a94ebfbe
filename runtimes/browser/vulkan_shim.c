/* Stands where Chromium expects SwiftShader's Vulkan driver (libvk_swiftshader.so), and hands every
 * call to Mesa's lavapipe, which unlike SwiftShader has float16 in shaders.
 *
 * Chromium accepts a CPU as WebGPU adapter only with SwiftShader's vendor and device id, so these
 * two numbers are changed in what lavapipe answers. Nothing else is.
 *
 * EDGEPROOF_LAVAPIPE is the folder of lavapipe and the libraries that it needs. Their file names are
 * not what the dynamic linker would look for, so each is loaded once those that it needs are there.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRIVER "libvulkan_lvp.so"
#define GOOGLE 0x1AE0u
#define SWIFTSHADER 0xC0DEu
#define INTERFACE_VERSION 5u /* of the loader: the last one without functions that are not here */

typedef void (*Function)(void);
typedef Function (*GetProc)(void *instance, const char *name);

/* How VkPhysicalDeviceProperties and VkPhysicalDeviceProperties2 begin. */
typedef struct { uint32_t api_version, driver_version, vendor, device; } Properties;
typedef struct { uint32_t type; void *next; Properties properties; } Properties2;

static GetProc lavapipe;
static void (*real_properties)(void *device, Properties *out);
static void (*real_properties2)(void *device, Properties2 *out);

static void *open_in(const char *folder, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static int wanted(const struct dirent *entry)
{
    return strstr(entry->d_name, ".so") && strcmp(entry->d_name, DRIVER) != 0
        && strncmp(entry->d_name, "libVkLayer", 10) != 0;
}

/* Libraries in any order, again and again while at least one more can be loaded; then the driver. */
static void load(void)
{
    const char *folder = getenv("EDGEPROOF_LAVAPIPE");
    struct dirent **waiting;
    int count = folder ? scandir(folder, &waiting, wanted, alphasort) : -1;
    for (int before = -1; count > 0 && count != before;) {
        before = count;
        for (int i = 0; i < count;) {
            if (open_in(folder, waiting[i]->d_name))
                waiting[i] = waiting[--count];
            else
                i++;
        }
    }
    void *driver = count < 0 ? NULL : open_in(folder, DRIVER);
    if (!driver) {
        fprintf(stderr, "edgeproof: no lavapipe in %s: %s\n", folder ? folder : "(unset)", dlerror());
        return;
    }
    int (*negotiate)(uint32_t *) = dlsym(driver, "vk_icdNegotiateLoaderICDInterfaceVersion");
    uint32_t version = INTERFACE_VERSION;
    if (negotiate)
        negotiate(&version);
    lavapipe = (GetProc)dlsym(driver, "vk_icdGetInstanceProcAddr");
}

static void properties(void *device, Properties *out)
{
    real_properties(device, out);
    out->vendor = GOOGLE;
    out->device = SWIFTSHADER;
}

static void properties2(void *device, Properties2 *out)
{
    real_properties2(device, out);
    out->properties.vendor = GOOGLE;
    out->properties.device = SWIFTSHADER;
}

Function vkGetInstanceProcAddr(void *instance, const char *name)
{
    if (!lavapipe)
        load();
    if (!strcmp(name, "vkGetInstanceProcAddr"))
        return (Function)vkGetInstanceProcAddr;
    Function found = lavapipe ? lavapipe(instance, name) : NULL;
    if (found && !strcmp(name, "vkGetPhysicalDeviceProperties")) {
        real_properties = (void (*)(void *, Properties *))found;
        return (Function)properties;
    }
    if (found && !strncmp(name, "vkGetPhysicalDeviceProperties2", 30)) {
        real_properties2 = (void (*)(void *, Properties2 *))found;
        return (Function)properties2;
    }
    return found;
}

Function vk_icdGetInstanceProcAddr(void *instance, const char *name)
{
    return vkGetInstanceProcAddr(instance, name);
}

int vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version)
{
    if (*version > INTERFACE_VERSION)
        *version = INTERFACE_VERSION;
    return 0;
}
