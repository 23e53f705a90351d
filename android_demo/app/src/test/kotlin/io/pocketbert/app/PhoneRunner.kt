/*
 * Runs tests under Robolectric without androidx.test, whose AARs are on Google's Maven only.
 *
 * Robolectric's own environment starts a RoboMonitoringInstrumentation, which tells androidx.test about every activity; this
 * one starts the framework's Instrumentation.
 */
package io.pocketbert.app

import android.app.Instrumentation
import android.os.Bundle
import org.robolectric.RobolectricTestRunner
import org.robolectric.android.internal.AndroidTestEnvironment
import org.robolectric.internal.AndroidSandbox.TestEnvironmentSpec
import org.robolectric.internal.ShadowProvider
import org.robolectric.pluginapi.Sdk
import org.robolectric.pluginapi.TestEnvironmentLifecyclePlugin
import javax.inject.Named

class PhoneRunner(test: Class<*>) : RobolectricTestRunner(
    test,
    defaultInjector().bind(TestEnvironmentSpec::class.java, TestEnvironmentSpec(PlainEnvironment::class.java)).build(),
)

class PlainEnvironment(
    @Named("runtimeSdk") runtime: Sdk,
    @Named("compileSdk") compile: Sdk,
    shadows: Array<ShadowProvider>,
    plugins: Array<TestEnvironmentLifecyclePlugin>,
) : AndroidTestEnvironment(runtime, compile, shadows, plugins) {
    override fun pickInstrumentation(): Instrumentation = PlainInstrumentation()
}

/** Tests run on the main thread, and no process waits for the end. */
class PlainInstrumentation : Instrumentation() {
    override fun runOnMainSync(runner: Runnable) = runner.run()

    override fun finish(resultCode: Int, results: Bundle?) = Unit
}
