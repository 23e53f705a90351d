/*
 * A phone in a test: the app's screen, fingers on it, time that passes, and pictures of what it shows.
 *
 * Worker threads are real, the main thread is the test's: whatever waits for it runs in [settle], message by message.
 */
package io.pocketbert.app

import android.graphics.Bitmap
import android.graphics.Canvas
import android.os.Bundle
import android.os.Looper
import android.view.View
import android.view.ViewGroup
import android.view.WindowInsets
import android.widget.EditText
import android.widget.ImageButton
import android.widget.ListView
import android.widget.TextView
import io.pocketbert.chat.Chat
import io.pocketbert.chat.FakeModels
import io.pocketbert.chat.Models
import io.pocketbert.chat.Sender
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.runBlocking
import org.robolectric.Robolectric
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import java.io.File
import java.util.concurrent.TimeoutException
import java.util.concurrent.atomic.AtomicInteger
import kotlin.coroutines.CoroutineContext

/** The app with models of a test's choice, and with a process that a test can end. */
class TestApplication : ChatApplication() {
    val worker = Worker()
    private var life: Job? = null
    private var current: Chat? = null

    override val chat: Chat
        get() = current ?: Job().let { job ->
            life = job
            start(CoroutineScope(job + worker)).also { current = it }
        }

    override fun models(): Models = models?.invoke(this) ?: super.models()

    /** As a kill does it: nothing is told, what is in memory is gone, files stay. */
    fun kill() {
        runBlocking { life?.cancelAndJoin() }
        current = null
    }

    /** As a newly installed app. */
    fun forget() {
        kill()
        filesDir.deleteRecursively()
    }

    companion object {
        /** Set it before the app starts; null for the app's own models. */
        var models: ((ChatApplication) -> Models)? = { FakeModels() }
    }
}

/** The chat's threads, which say whether a step of the chat has yet to end: the state has what a step found before the screen is told. */
class Worker : CoroutineDispatcher() {
    private val unfinished = AtomicInteger()
    val isIdle get() = unfinished.get() == 0

    override fun dispatch(context: CoroutineContext, block: Runnable) {
        unfinished.incrementAndGet()
        Dispatchers.Default.dispatch(context) {
            try {
                block.run()
            } finally {
                unfinished.decrementAndGet()
            }
        }
    }
}

class Phone {
    val application = RuntimeEnvironment.getApplication() as TestApplication
    var controller: ActivityController<ChatActivity> = Robolectric.buildActivity(ChatActivity::class.java)
    val activity: ChatActivity get() = controller.get()
    val chat: Chat get() = application.chat
    val input: EditText get() = activity.findViewById(R.id.input)
    val list: ListView get() = activity.findViewById(R.id.messages)

    fun start() = apply {
        controller.setup()
        settle { chat.state.value.run { opened != null || helpless } }
    }

    /** Lets the main thread work until something holds and the screen was told of it, and then until it has nothing to do. */
    fun settle(until: () -> Boolean = { true }) {
        val end = System.nanoTime() + PATIENCE_NS
        while (true) {
            shadowOf(Looper.getMainLooper()).idle()
            if (until() && application.worker.isIdle) break
            if (System.nanoTime() > end) throw TimeoutException("the screen shows: ${texts()}; ${chat.state.value}")
            Thread.sleep(1)
        }
        Thread.sleep(2) // an answer that is on its way
        shadowOf(Looper.getMainLooper()).idle()
    }

    /** Types at the end of the input field, as a keyboard does, and waits for the label. */
    fun type(text: String) = apply {
        input.append(text)
        settle { chat.state.value.run { draft.answer != null || draft.text.isBlank() || helpless } }
    }

    fun send() = apply {
        activity.findViewById<ImageButton>(R.id.send).performClick()
        settle { chat.state.value.run { helpless || messages.none { it.sender == Sender.USER && it.verdict == null } } }
    }

    fun say(text: String) = type(text).send()

    fun text(id: Int): String = activity.findViewById<TextView>(id).run { if (isShown) text.toString() else "" }

    /** The rows of the conversation as TalkBack reads them. */
    fun rows(): List<String> {
        layOut()
        return (0 until list.adapter.count).map { list.adapter.getView(it, null, list).contentDescription.toString() }
    }

    fun texts(): List<String> = texts(activity.window.decorView)

    private fun texts(view: View): List<String> = when {
        view is TextView && view.isShown -> listOf(view.text.toString())
        view is ViewGroup -> (0 until view.childCount).flatMap { texts(view.getChildAt(it)) }
        else -> emptyList()
    }

    /** As a turned phone: the activity goes and another comes, with what it saved. */
    fun rotate(qualifiers: String) = apply {
        RuntimeEnvironment.setQualifiers(qualifiers)
        controller.configurationChange(application.resources.configuration).visible()
        settle()
    }

    /** Ends the process without a word, after the system has saved the activity; then the user comes back. */
    fun killAndReturn() = apply {
        val saved = Bundle()
        controller.pause().stop().saveInstanceState(saved)
        application.kill()
        controller.destroy()
        controller = Robolectric.buildActivity(ChatActivity::class.java).create(saved).start().restoreInstanceState(saved).resume().visible()
        settle { chat.state.value.run { opened != null || helpless } }
    }

    /** Bars of the system, and a keyboard, in dp. */
    fun bars(top: Int = 0, bottom: Int = 0, keyboard: Int = 0, view: View = activity.window.decorView) = apply {
        val density = activity.resources.displayMetrics.density
        fun px(dp: Int) = (dp * density).toInt()
        val insets = WindowInsets.Builder()
            .setInsets(WindowInsets.Type.statusBars(), android.graphics.Insets.of(0, px(top), 0, 0))
            .setInsets(WindowInsets.Type.navigationBars(), android.graphics.Insets.of(0, 0, 0, px(bottom)))
            .setInsets(WindowInsets.Type.ime(), android.graphics.Insets.of(0, 0, 0, px(keyboard)))
            .build()
        view.dispatchApplyWindowInsets(insets)
        layOut()
    }

    fun layOut(view: View = activity.window.decorView) {
        val (width, height) = activity.resources.displayMetrics.run { widthPixels to heightPixels }
        view.measure(View.MeasureSpec.makeMeasureSpec(width, View.MeasureSpec.EXACTLY), View.MeasureSpec.makeMeasureSpec(height, View.MeasureSpec.EXACTLY))
        view.layout(0, 0, width, height)
        settle()
    }

    /** What the screen shows, with a sheet over it if one is open. */
    fun picture(sheet: View? = null): Bitmap {
        layOut()
        val root = activity.window.decorView
        val bitmap = Bitmap.createBitmap(root.width, root.height, Bitmap.Config.ARGB_8888)
        val canvas = Canvas(bitmap)
        root.draw(canvas)
        sheet?.let {
            canvas.drawColor(DIM)
            layOut(it)
            it.draw(canvas)
        }
        return bitmap
    }

    /** A picture in the folder of screenshots. */
    fun shoot(name: String, sheet: View? = null) {
        val folder = File(System.getProperty("screenshots") ?: "target/screenshots").apply { mkdirs() }
        File(folder, "$name.png").outputStream().use { picture(sheet).compress(Bitmap.CompressFormat.PNG, 100, it) }
    }

    private companion object {
        const val PATIENCE_NS = 20_000_000_000L
        const val DIM = 0x80000000.toInt()
    }
}
